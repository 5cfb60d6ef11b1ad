"""What is in a data set, case by case: behind utils/statistics.py."""
