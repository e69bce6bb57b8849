"""What is printed: pages as PDF, and texts as paper shows them."""
