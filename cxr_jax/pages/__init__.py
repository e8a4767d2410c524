"""Parts of the report's page: HTML pieces, figures, tables, the gallery."""
