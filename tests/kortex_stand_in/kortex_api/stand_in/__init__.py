"""The wire of the Kortex protocol: messages, frames, service and function numbers."""
