"""Fine-tuning of encoders: LoRA and full."""
