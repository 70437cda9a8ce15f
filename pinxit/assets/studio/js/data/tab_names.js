// The tabs of a dataset, by their names in the address.

export const TABS = {
  overview: "Overview",
  kept: "Kept pictures",
  rejected: "Rejected pictures",
  rows: "All rows",
  details: "Details",
};
