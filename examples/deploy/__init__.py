"""Files that deploy an application; README.md explains them."""
