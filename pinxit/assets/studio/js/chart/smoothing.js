// Exponential smoothing: each value is a mean of those up to it, in which older ones count less.
// The mean is divided by the sum of its weights, so that it does not start near zero.

export function smoothed(values, weight) {
  let mean = 0;
  let sum = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    sum = weight * sum + (1 - weight);
    return mean / sum;
  });
}
