"""What is written about localized frames: metrics, tables, pictures and the page of a results folder."""
