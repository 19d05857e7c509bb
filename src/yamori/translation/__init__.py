"""One file per page-table format: GVA to GPA, over physical loads only."""
