"""What came of a job: pictures, index, sheets, page."""
