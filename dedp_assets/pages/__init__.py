"""HTML pages for people: one file each that loads nothing, with text from others escaped, and charts as SVG."""
