import { expect, test } from "bun:test";

import {
  backportsSources,
  parseDeb822Sources,
  parseOneLineSources,
  suiteSources,
} from "./apt_sources.ts";

test("parseOneLineSources reads options and skips what apt-get cannot use unattended", () => {
  const sources = parseOneLineSources(`
# deb http://commented.example/debian bookworm main
deb cdrom:[Debian GNU/Linux 12.0 _Bookworm_]/ bookworm main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main contrib # ours
deb mirror+file:/etc/apt/mirrors/debian.list bookworm-updates main
`);
  expect(sources).toEqual([
    {
      uris: ["http://mirror.example/debian"],
      suites: ["bookworm"],
      components: ["main", "contrib"],
      signedBy: "/usr/share/keyrings/k.gpg",
    },
    {
      uris: ["mirror+file:/etc/apt/mirrors/debian.list"],
      suites: ["bookworm-updates"],
      components: ["main"],
    },
  ]);
});

test("parseDeb822Sources reads stanzas with comments, several suites and a key of several lines", () => {
  const sources = parseDeb822Sources(`Types: deb deb-src
# a comment between fields
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
`);
  expect(sources).toEqual([
    {
      uris: ["http://mirror.example/debian"],
      suites: ["bookworm", "bookworm-updates"],
      components: ["main"],
      signedBy: "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc",
    },
  ]);
});

test("backportsSources prefers Debian's mirror to another vendor's repository", () => {
  const sources = parseOneLineSources(`
deb http://vendor.example/php bookworm main
deb http://mirror.example/debian bookworm main
deb http://mirror.example/debian bookworm-updates main
deb http://security.example/debian-security bookworm-security main
`);
  expect(backportsSources(sources, "bookworm")).toBe(`Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-backports bookworm-updates
Components: main

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
`);
});

test("backportsSources finds no mirror in the sources of another release", () => {
  const sources = parseOneLineSources("deb http://mirror.example/debian trixie main");
  expect(backportsSources(sources, "bookworm")).toBeUndefined();
});

test("suiteSources takes the machine's own mirror, not a vendor's and not the security archive", () => {
  const sources = parseOneLineSources(`
deb http://vendor.example/php bookworm main
deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main contrib
deb http://mirror.example/debian bookworm-updates main
deb http://security.example/debian-security bookworm-security main
`);
  expect(suiteSources(sources, "sid")).toBe(`Types: deb
URIs: http://mirror.example/debian
Suites: sid
Components: main
Signed-By: /usr/share/keyrings/k.gpg
`);
  expect(
    suiteSources(parseOneLineSources("deb http://vendor.example/php any main"), "sid"),
  ).toBeUndefined();
});
