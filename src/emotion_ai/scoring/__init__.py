"""Bulk scoring: the faces of many pictures, with Ray Data, into Parquet files."""
