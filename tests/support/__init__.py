"""Scripts that compare two checkouts of this project; pytest collects none of them."""
