"""The local features' network: its torch module, its export and its fine-tuning."""
