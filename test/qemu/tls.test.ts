import { record, restore, type TlsOptions } from "../../mod.ts";
import { LimitMs } from "../kit/limits.ts";
import { pskFolder, TestAuthority } from "../kit/tls_folders.ts";
import { endpointOf, GuestTest, uriOf, type Side } from "./guest_migration.ts";
import { qemuTest } from "./qemu_case.ts";
import type { QemuVersion } from "./qemu_versions.ts";

interface TlsCase {
  readonly version: QemuVersion;
  readonly compression: Side["compression"];
  readonly channels: number;
  /** Our options as a receiver and as a sender, and QEMU's objects at the other end. */
  readonly credentials: (folder: string) => {
    readonly receiver: TlsOptions;
    readonly sender: TlsOptions;
    readonly source: string;
    readonly target: string;
  };
}

const psk: TlsCase["credentials"] = (folder) => {
  const dir = pskFolder(folder, "keys");
  const tls = { kind: "psk", dir } as const;
  const object = (endpoint: string): string => `tls-creds-psk,dir=${dir},endpoint=${endpoint}`;
  return { receiver: tls, sender: tls, source: object("client"), target: object("server") };
};

const x509 =
  (verify: boolean): TlsCase["credentials"] =>
  (folder) => {
    const authority = new TestAuthority(folder, "authority");
    const server = authority.folder("server", "server", {});
    const client = authority.folder("client", "client", verify ? {} : undefined);
    const object = (dir: string, endpoint: string): string =>
      `tls-creds-x509,dir=${dir},endpoint=${endpoint},verify-peer=${verify || endpoint === "client" ? "on" : "off"}`;
    return {
      receiver: { kind: "x509", dir: server, verifyPeer: verify },
      sender: { kind: "x509", dir: client },
      source: object(client, "client"),
      target: object(server, "server"),
    };
  };

/** A guest goes from QEMU into a recording and on into another QEMU, encrypted on both ways. */
async function expectEncryptedWay(options: TlsCase): Promise<void> {
  const { version, compression, channels, credentials } = options;
  await using guest = await GuestTest.create();
  const { receiver, sender, source: from, target: to } = credentials(guest.folder);
  const output = guest.path("vm.rec");
  const side = { channels, compression, version };
  await using source = await guest.startSource({ ...side, tlsObject: from });
  {
    const common = { endpoint: "127.0.0.1:0", channels, compression, tls: receiver };
    await using recorder = await record({ ...common, output });
    await source.migrate(uriOf(recorder.endpoint));
    await recorder.complete();
  }
  await source.waitMigration(LimitMs.busyMigration);
  await using target = await guest.startTarget({ ...side, tlsObject: to });
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  await using restorer = await restore({
    input: output,
    endpoint,
    channels,
    compression,
    tls: sender,
  });
  await restorer.complete();
  await target.waitMigration(LimitMs.busyMigration);
  await guest.expectGoesOn(source, target);
}

const CASES: readonly (readonly [name: string, options: TlsCase])[] = [
  ["10.0, psk, none/2", { version: "10.0", compression: "none", channels: 2, credentials: psk }],
  [
    "10.0, x509 on both sides, zstd/5",
    { version: "10.0", compression: "zstd", channels: 5, credentials: x509(true) },
  ],
  [
    "11.1, x509 of the receiver alone, zlib/1",
    { version: "11.1", compression: "zlib", channels: 1, credentials: x509(false) },
  ],
  ["11.1, psk, none/4", { version: "11.1", compression: "none", channels: 4, credentials: psk }],
];

for (const [name, options] of CASES) {
  qemuTest(
    `record and restore over TLS: QEMU ${name}`,
    () => expectEncryptedWay(options),
    undefined,
    [options.version],
  );
}
