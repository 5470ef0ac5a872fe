"""Parts that several tests share: paths, bundles, bags, datasets, peers."""
