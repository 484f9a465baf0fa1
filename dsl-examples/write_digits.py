"""Writes the 8x8 digits that come with scikit-learn as CSV: 64 pixel columns (0 to 16), then the label."""

import csv
import sys

from sklearn.datasets import load_digits

digits = load_digits()
with open(sys.argv[1], "w", newline="") as file:
    writer = csv.writer(file)
    for pixels, label in zip(digits.data, digits.target):
        writer.writerow([int(p) for p in pixels] + [int(label)])
print(f"wrote {len(digits.target)} digits to {sys.argv[1]}")
