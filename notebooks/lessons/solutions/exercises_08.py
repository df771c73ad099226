"""Solutions of exercises_08: use the model. The name of each is that of its exercise."""

edited = [2, 1, 1, 2, 1]

turn_two = {"system", "question 1", "answer 1", "question 2"}

sizes = [7.6 * 16 / 8, 7.6 * 8.5 / 8]  # 15.2 and 8.1 GB: 8 bits, and 16 / 32 for the scale
