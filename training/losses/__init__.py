"""Loss terms, one small class each. Each formula is *our reading* of the paper (arXiv 1901.01049): the
paper's own formulas were not available to us.
"""
