---Where the meters of the simulated house are found.
return {
  primary = { 10, 12, 15, 17, 74, 75, 76, 77, 79 },
  -- The first two share the primary address 0.
  secondary = { "3189274724232804", "3189274924232804", "829690102D2C400D", "829690122D2C400D", "829690152D2C400D",
    "829690172D2C400D", "830036742D2C400D", "830036752D2C400D", "830036762D2C400D", "830036772D2C400D", "830036792D2C400D" },
}
