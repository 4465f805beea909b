"""Figures as SVG text: pure functions of plain data and a width in pixels."""
