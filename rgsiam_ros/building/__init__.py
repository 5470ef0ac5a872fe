"""From recordings to a bundle: the stages of `rgsiam build`, each a command of its own."""
