"""The report of an evaluation: numbers, figures, pictures, and the page that shows them."""
