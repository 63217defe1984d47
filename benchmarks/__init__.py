"""What streamkit costs, as ratios between things that are measured side by side."""
