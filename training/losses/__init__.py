"""Loss terms, each a small class of its own. Each formula is *our reading* of the paper
(arXiv 1901.01049), whose own formulas were not available to us.
"""
