"""Whether `profile` copes with what people build: timm's architectures, transformers' families."""
