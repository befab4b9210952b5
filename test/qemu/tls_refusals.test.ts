import { expect } from "bun:test";
import { randomBytes } from "node:crypto";
import { connect, listen, RamBlock, type TlsOptions } from "../../mod.ts";
import { rejectionOf } from "../kit/errors.ts";
import { pskFolder, TestAuthority } from "../kit/tls_folders.ts";
import { endpointOf, GuestTest, uriOf } from "./guest_migration.ts";
import type { Qemu } from "./qemu.ts";
import { qemuTest } from "./qemu_case.ts";
import { tlsObject } from "./tls_credentials.ts";

const SIDE = { channels: 2, compression: "none" } as const;
const FAILURE_LIMIT_MS = 20_000;
const timeouts = { connectMs: 5000, acceptMs: 6000, idleMs: 15_000, stallMs: 10_000 };
const block = RamBlock.allocate("pc.ram", 1 << 20);
block.view(0, block.bytes).set(randomBytes(block.bytes));

interface Refusal {
  /** What our side is told to do, and QEMU's object at the other end; undefined: no TLS. */
  readonly ours?: TlsOptions;
  readonly qemu?: string | undefined;
  readonly authz?: string;
}

type MakeRefusal = (folder: string) => Refusal;

/** A sender of ours fails with words, and none of its memory has arrived. */
async function expectTargetRefused(make: MakeRefusal, words: RegExp): Promise<void> {
  await using guest = await GuestTest.create();
  const { ours, qemu, authz } = make(guest.folder);
  await using target = await guest.startTarget({ ...SIDE, tlsObject: qemu, tlsAuthz: authz });
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0", false));
  const error = await rejectionOf(
    (async () => {
      await using sender = await connect({
        ...SIDE,
        endpoint,
        blocks: [block],
        tls: ours,
        timeouts,
      });
      await sender.send();
      await sender.complete();
    })(),
  );
  expect(error.side).toBe("source");
  expect(error.message).toMatch(words);
}

/** A QEMU fails to migrate to a receiver of ours, which says why; its guest runs on. */
async function expectSourceRefused(make: MakeRefusal, words: RegExp): Promise<void> {
  await using guest = await GuestTest.create();
  const { ours, qemu } = make(guest.folder);
  await using source = await guest.startSource({ ...SIDE, tlsObject: qemu });
  await using receiver = await listen({ ...SIDE, endpoint: "127.0.0.1:0", tls: ours, timeouts });
  const received = rejectionOf(receiver.complete());
  await source.migrate(uriOf(receiver.endpoint));
  await expectFailed(source);
  expect((await received).message).toMatch(words);
  expect(receiver.blocks).toEqual([]);
  expect(await source.status()).toBe("running");
}

async function expectFailed(source: Qemu): Promise<void> {
  const deadline = performance.now() + FAILURE_LIMIT_MS;
  let status = "";
  while (status !== "failed" && performance.now() < deadline) {
    await Bun.sleep(20);
    ({ status } = await source.queryMigrate());
  }
  expect(status).toBe("failed");
}

const authority = (folder: string, name = "ours") => new TestAuthority(folder, name);
const certified = (dir: string, more: object = {}) => ({ kind: "x509", dir, ...more }) as const;

const TARGETS: readonly (readonly [name: string, make: MakeRefusal, words: RegExp])[] = [
  [
    "has another shared key",
    (folder) => ({
      ours: { kind: "psk", dir: pskFolder(folder, "one") },
      qemu: tlsObject("psk", pskFolder(folder, "two"), "server"),
    }),
    /Cannot open TLS connection with .*(the receiver refused it|the receiver ended the connection)/,
  ],
  [
    "does not know the user",
    (folder) => ({
      ours: { kind: "psk", dir: pskFolder(folder, "one", ["ann"]), username: "ann" },
      qemu: tlsObject("psk", pskFolder(folder, "two"), "server"),
    }),
    /Cannot open TLS connection with .*the receiver/,
  ],
  [
    "has a certificate of an unknown authority",
    (folder) => ({
      ours: certified(authority(folder, "theirs").folder("client", "client")),
      qemu: tlsObject("x509", authority(folder).folder("server", "server", {}), "server", false),
    }),
    /the receiver's certificate is refused here: its authority is not known here/,
  ],
  [
    "has a certificate of another host",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("client", "client"), { hostname: "elsewhere" }),
        qemu: tlsObject("x509", ca.folder("server", "server", {}), "server", false),
      };
    },
    /the receiver's certificate is refused here: it is not that of the host/,
  ],
  [
    "requires a certificate that the sender has not",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("client", "client")),
        qemu: tlsObject("x509", ca.folder("server", "server", {}), "server"),
      };
    },
    /it asked for a certificate, and this side has none that it takes/,
  ],
  [
    "does not know the authority of the sender's certificate",
    (folder) => {
      const [ca, other] = [authority(folder), authority(folder, "theirs")];
      const client = other.folder("client", "client", {});
      ca.trust(client);
      return {
        ours: certified(client),
        qemu: tlsObject("x509", ca.folder("server", "server", {}), "server"),
      };
    },
    /it asked for a certificate, and this side has none that it takes/,
  ],
  [
    "does not take an expired certificate of the sender",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("client", "client", { days: -1 })),
        qemu: tlsObject("x509", ca.folder("server", "server", {}), "server"),
      };
    },
    /Cannot open TLS connection with .*the receiver/,
  ],
  [
    "takes another name",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("client", "client", { commonName: "me" })),
        qemu: tlsObject("x509", ca.folder("server", "server", {}), "server"),
        authz: "CN=you",
      };
    },
    /Cannot open TLS connection with .*the receiver/,
  ],
  [
    "has no TLS",
    (folder) => ({ ours: { kind: "psk", dir: pskFolder(folder, "one") } }),
    /it may be without TLS/,
  ],
  [
    "has TLS where the sender has none",
    (folder) => ({ qemu: tlsObject("psk", pskFolder(folder, "one"), "server") }),
    /./,
  ],
];

for (const [name, make, words] of TARGETS) {
  qemuTest(`a sender fails where QEMU ${name}`, () => expectTargetRefused(make, words));
}

const SOURCES: readonly (readonly [name: string, make: MakeRefusal, words: RegExp])[] = [
  [
    "has another shared key",
    (folder) => ({
      ours: { kind: "psk", dir: pskFolder(folder, "one") },
      qemu: tlsObject("psk", pskFolder(folder, "two"), "client"),
    }),
    /the key of the sender is another than here/,
  ],
  [
    "does not know the authority",
    (folder) => ({
      ours: certified(authority(folder).folder("server", "server", {})),
      qemu: tlsObject("x509", authority(folder, "theirs").folder("client", "client"), "client"),
    }),
    /the sender (refused it|ended the connection|shows no certificate)/,
  ],
  [
    "shows no certificate",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("server", "server", {})),
        qemu: tlsObject("x509", ca.folder("client", "client"), "client"),
      };
    },
    /the sender shows no certificate, and this side requires one/,
  ],
  [
    "has a name that is not taken",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("server", "server", {}), { allow: "CN=you" }),
        qemu: tlsObject("x509", ca.folder("client", "client", { commonName: "me" }), "client"),
      };
    },
    /the sender's certificate is that of CN=me, must be one of CN=you/,
  ],
  [
    "expects another host",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("server", "server", { names: ["elsewhere"] })),
        qemu: tlsObject("x509", ca.folder("client", "client", {}), "client"),
      };
    },
    /the sender (refused it|ended the connection)/,
  ],
  [
    "finds our certificate expired",
    (folder) => {
      const ca = authority(folder);
      return {
        ours: certified(ca.folder("server", "server", { days: -1 })),
        qemu: tlsObject("x509", ca.folder("client", "client", {}), "client"),
      };
    },
    /./,
  ],
  [
    "has no TLS",
    (folder) => ({ ours: { kind: "psk", dir: pskFolder(folder, "one") } }),
    /the sender does not speak TLS there/,
  ],
  [
    "has TLS and the receiver none",
    (folder) => ({ qemu: tlsObject("psk", pskFolder(folder, "one"), "client") }),
    /began with TLS, which is not on here/,
  ],
];

for (const [name, make, words] of SOURCES) {
  qemuTest(`a receiver refuses a QEMU that ${name}`, () => expectSourceRefused(make, words));
}
