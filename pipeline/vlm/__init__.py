"""Pretrained vision-language backbones: found and loaded, and shown pictures and a task as they know them."""
