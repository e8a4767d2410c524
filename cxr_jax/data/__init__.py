"""Films, tables, splits and batches."""
