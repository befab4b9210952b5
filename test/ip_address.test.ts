import { expect, test } from "bun:test";
import { array, assert, constantFrom, ipV4, ipV4Extended, ipV6, oneof, property } from "fast-check";
import { isIP } from "node:net";
import { ipVersion } from "../lib/net/ip_address.ts";

test("ipVersion() knows every numeric address and nothing else, as the runtime does", () => {
  const part = constantFrom(
    ":",
    "::",
    ".",
    "%",
    "0",
    "00",
    "1",
    "25",
    "255",
    "256",
    "1.2.3.4",
    "fe80",
    "ffff",
    "g",
    "12345",
    "eth0",
    " ",
    "-",
  );
  const text = array(part, { maxLength: 18 }).map((parts) => parts.join(""));
  const address = oneof(ipV4(), ipV6(), ipV4Extended(), text);
  assert(
    property(address, (host) => {
      expect([host, ipVersion(host)]).toEqual([host, isIP(host) as 0 | 4 | 6]);
    }),
    { numRuns: 20_000 },
  );
  for (const host of ["::1%eth0", "fe80::1%", "::ffff:1.2.3.4", "1::2::3", "localhost", ""]) {
    expect([host, ipVersion(host)]).toEqual([host, isIP(host) as 0 | 4 | 6]);
  }
});
