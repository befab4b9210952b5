import { expect, test } from "bun:test";
import { record, relay, restore } from "../../mod.ts";
import { LimitMs } from "../kit/limits.ts";
import { endpointOf, GuestTest, uriOf, type Side } from "./guest_migration.ts";
import { MATRIX_VARIABLE } from "./matrix.ts";
import { qemuTest } from "./qemu_case.ts";
import type { QemuVersion } from "./qemu_versions.ts";
import { psk, x509, x509OfReceiver, type MakeCredentials } from "./tls_credentials.ts";

interface TlsCase {
  readonly version: QemuVersion;
  readonly compression: Side["compression"];
  readonly channels: number;
  readonly credentials: MakeCredentials;
  readonly machine?: string;
  readonly switchoverAck?: boolean;
}

/** A guest goes from QEMU into a recording and on into another QEMU, encrypted on both ways. */
async function expectEncryptedWay(options: TlsCase): Promise<void> {
  const { version, compression, channels, credentials, machine, switchoverAck } = options;
  await using guest = await GuestTest.create({ machine });
  const { receiver, sender, source: from, target: to, authz } = credentials(guest.folder);
  const output = guest.path("vm.rec");
  const side = { channels, compression, version, switchoverAck };
  const ours = { channels, compression, switchoverAck };
  await using source = await guest.startSource({ ...side, tlsObject: from });
  {
    const common = { ...ours, endpoint: "127.0.0.1:0", tls: receiver };
    await using recorder = await record({ ...common, output });
    await source.migrate(uriOf(recorder.endpoint));
    await recorder.complete();
    expect(recorder.statistics().tls?.protocol).toBe("TLS 1.3");
  }
  await source.waitMigration(LimitMs.busyMigration);
  await using target = await guest.startTarget({ ...side, tlsObject: to, tlsAuthz: authz });
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  await using restorer = await restore({ ...ours, input: output, endpoint, tls: sender });
  const { tls } = await restorer.complete();
  expect(tls?.suite).toBe("TLS_AES_128_GCM_SHA256");
  await target.waitMigration(LimitMs.busyMigration);
  await guest.expectGoesOn(source, target);
}

const CASES: readonly (readonly [name: string, options: TlsCase])[] = [
  ["10.0, psk, none/2", { version: "10.0", compression: "none", channels: 2, credentials: psk }],
  [
    "10.0, x509 on both sides and a name that is taken, zstd/5, pc-q35-9.2, switchover-ack",
    {
      version: "10.0",
      compression: "zstd",
      channels: 5,
      credentials: x509,
      machine: "pc-q35-9.2",
      switchoverAck: true,
    },
  ],
  [
    "11.1, x509 of the receiver alone, zlib/1, pc-q35-10.0, switchover-ack",
    {
      version: "11.1",
      compression: "zlib",
      channels: 1,
      credentials: x509OfReceiver,
      machine: "pc-q35-10.0",
      switchoverAck: true,
    },
  ],
  ["11.1, psk, none/16", { version: "11.1", compression: "none", channels: 16, credentials: psk }],
];

for (const [name, options] of CASES) {
  qemuTest(
    `record and restore over TLS: QEMU ${name}`,
    () => expectEncryptedWay(options),
    undefined,
    [options.version],
  );
}

const every = Number(process.env[MATRIX_VARIABLE] ?? 0);

/** All methods, channels and credentials with both QEMUs; the rest takes turns. */
function matrixCases(): (readonly [name: string, options: TlsCase])[] {
  const kinds = { psk, x509, "x509 of the receiver": x509OfReceiver };
  const cases = (["10.0", "11.1"] as const).flatMap((version) =>
    Object.entries(kinds).flatMap(([kind, credentials]) =>
      (["none", "zlib", "zstd"] as const).flatMap((compression) =>
        [1, 2, 5, 16].map((channels) => ({ version, kind, credentials, compression, channels })),
      ),
    ),
  );
  return cases.map(({ kind, ...rest }, index) => {
    const machine = ["pc-q35-9.2", "pc-q35-10.0", "pc"][index % 3]!;
    const switchoverAck = index % 2 === 0;
    const name =
      `${rest.version}, ${kind}, ${rest.compression}/${rest.channels}, ${machine}` +
      (switchoverAck ? ", switchover-ack" : "");
    return [name, { ...rest, machine, switchoverAck }] as const;
  });
}

if (every > 0) {
  for (const [name, options] of matrixCases().filter((_, index) => index % every === 0)) {
    qemuTest(
      `matrix: record and restore over TLS: QEMU ${name}`,
      () => expectEncryptedWay(options),
      undefined,
      [options.version],
    );
  }
} else {
  test.skip(`matrix of QEMU migrations over TLS (needs ${MATRIX_VARIABLE}=1)`, () => {});
}

/** A running guest goes through a relay with TLS on the sides that have credentials. */
async function expectEncryptedRelay(
  from: MakeCredentials | undefined,
  to: MakeCredentials | undefined,
  version: QemuVersion,
): Promise<void> {
  await using guest = await GuestTest.create();
  const [near, far] = [from?.(guest.folder), to?.(guest.folder)];
  const sides = [
    { channels: 2, compression: "none" },
    { channels: 3, compression: "zstd" },
  ] as const;
  const common = { version, switchoverAck: true };
  await using source = await guest.startSource({ ...sides[0], ...common, tlsObject: near?.source });
  await using target = await guest.startTarget({
    ...sides[1],
    ...common,
    tlsObject: far?.target,
    tlsAuthz: far?.authz,
  });
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  await using relaying = await relay({
    listen: { ...sides[0], endpoint: "127.0.0.1:0", tls: near?.receiver },
    connect: { ...sides[1], endpoint, tls: far?.sender },
  });
  await source.migrate(uriOf(relaying.endpoint));
  const { incoming, outgoing } = await relaying.complete();
  await Promise.all([
    source.waitMigration(LimitMs.busyMigration),
    target.waitMigration(LimitMs.busyMigration),
  ]);
  expect(incoming.tls === undefined).toBe(near === undefined);
  expect(outgoing.tls === undefined).toBe(far === undefined);
  await guest.expectGoesOn(source, target);
}

for (const [name, from, to, version] of [
  ["the source's side", psk, undefined, "10.0"],
  ["the destination's side", undefined, x509, "11.1"],
  ["both sides, a shared key on one and certificates on the other", psk, x509, "10.0"],
] as const) {
  qemuTest(
    `a relay has TLS on ${name}: QEMU ${version}`,
    () => expectEncryptedRelay(from, to, version),
    undefined,
    [version],
  );
}
