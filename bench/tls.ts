/**
 * What encryption costs: this library, from this library to a QEMU, and QEMU, each plain, with
 * certificates and with a shared key, on the RAM of a guest and on pages that do not compress; beside
 * them what GnuTLS itself reaches from C (`native_tls.c`, built here). All take turns.
 *
 *     bun bench/tls.ts --channels 2,4 --runs 3
 *
 * @module
 */

import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { createSnapshot, openSnapshot } from "../mod.ts";
import { runCommand } from "../test/kit/subprocess.ts";
import { TemporaryFolder } from "../test/kit/temporary_folder.ts";
import { pskFolder, TestAuthority } from "../test/kit/tls_folders.ts";
import { COMPARABLE_METHODS, type TlsFolders, type TransferRun } from "./contender.ts";
import { cacheFolder, imageName, readGuestMeta, type GuestMeta } from "./guest_image.ts";
import { machineDescription } from "./idle_machine.ts";
import { oursTransfer, transferToQemu } from "./ours_transfer.ts";
import { qemuMigration } from "./qemu_contender.ts";
import { spread, summarize, table } from "./report.ts";
import { takeTurns } from "./rounds.ts";
import { choices, count, counts, json, runBenchmark, text, type Values } from "./settings.ts";

const NAMES = ["ours", "to-qemu", "qemu", "native"] as const;
const KINDS = ["plain", "x509", "psk"] as const;
const CONTENTS = ["random", "guest"] as const;

const SETTINGS = {
  image: text(join(cacheFolder(), `${imageName(1024)}.ram`), "raw RAM, its .snap and .json beside"),
  contents: choices(CONTENTS, CONTENTS, "pages that do not compress, or those of the image"),
  kinds: choices(KINDS, KINDS, "how it is encrypted"),
  compression: choices(
    COMPARABLE_METHODS,
    ["none", "zstd"],
    "of the guest; random pages have none",
  ),
  channels: counts([2, 4], "", 1, 64),
  runs: count(3, "counted runs of each", 1),
  against: choices(NAMES, NAMES, "to-qemu sends from here to a QEMU, native is GnuTLS from C"),
  json,
};

const PIECE_BYTES = 1 << 24;

/** One guest's RAM, for this library and for a QEMU. */
interface Content {
  readonly image: string;
  readonly snapshot: string;
  readonly imageBytes: number;
}

/** The guest of a snapshot with RAM that does not compress. */
async function randomContent(folder: TemporaryFolder, snapshot: string): Promise<Content> {
  using original = await openSnapshot(snapshot);
  const { blocks } = await original.load();
  const ram = blocks.find(({ idstr }) => idstr === "pc.ram");
  if (ram === undefined) throw new Error(`Cannot use ${snapshot}: it has no block pc.ram`);
  const [image, path] = [folder.file("random.ram"), folder.file("random.snap")];
  const file = createWriteStream(image);
  for (let at = 0; at < ram.bytes; at += PIECE_BYTES) {
    const piece = ram.view(at, Math.min(PIECE_BYTES, ram.bytes - at));
    for (let part = 0; part < piece.byteLength; part += 65_536) {
      crypto.getRandomValues(piece.subarray(part, part + 65_536));
    }
    await new Promise((resolve) => void file.write(piece, resolve));
  }
  await new Promise<void>((resolve) => void file.end(() => resolve()));
  await using writer = await createSnapshot({ path, blocks, guestState: original.guestState() });
  await writer.write();
  await writer.complete();
  return { image, snapshot: path, imageBytes: ram.bytes };
}

/** Credentials of both sides. */
function credentials(
  folder: TemporaryFolder,
): Record<(typeof KINDS)[number], TlsFolders | undefined> {
  const authority = new TestAuthority(folder.path, "authority");
  const keys = pskFolder(folder.path, "keys");
  return {
    plain: undefined,
    x509: {
      kind: "x509",
      sender: authority.folder("client", "client", {}),
      receiver: authority.folder("server", "server", {}),
    },
    psk: { kind: "psk", sender: keys, receiver: keys },
  };
}

/** GnuTLS from C: GiB/s and CPU seconds a GiB. */
async function native(
  folder: TemporaryFolder,
  keys: string,
  channels: number,
): Promise<readonly [gibPerSecond: number, cpuSecondsPerGib: number]> {
  const program = folder.file("native_tls");
  const source = new URL("native_tls.c", import.meta.url).pathname;
  const build = ["gcc", "-O3", "-o", program, source, "-l:libgnutls.so.30", "-lpthread"];
  for (const command of [build, [program, keys, String(channels), "1024"]]) {
    const { status, stdout, stderr } = await runCommand(command, { timeoutMs: 60_000 });
    if (status !== 0) throw new Error(`Cannot run ${command[0]}: ${stderr.trim()}`);
    if (command !== build) return stdout.split(" ").map(Number) as [number, number];
  }
  throw new Error("Cannot run native_tls");
}

async function main(settings: Values<typeof SETTINGS>): Promise<void> {
  using folder = new TemporaryFolder();
  const beside = settings.image.replace(/\.ram$/, "");
  const meta: GuestMeta = await readGuestMeta(`${beside}.json`);
  const tls = credentials(folder);
  const rows = new Map<string, ReturnType<typeof summarize>>();
  console.log(machineDescription());
  for (const kind of settings.contents) {
    const content =
      kind === "random"
        ? await randomContent(folder, `${beside}.snap`)
        : {
            image: settings.image,
            snapshot: `${beside}.snap`,
            imageBytes: Bun.file(settings.image).size,
          };
    for (const compression of kind === "random" ? (["none"] as const) : settings.compression) {
      for (const channels of settings.channels) {
        const field = new Map<string, () => Promise<TransferRun>>();
        for (const name of settings.kinds) {
          const options = { ...content, meta, compression, channels, level: 1, verify: false };
          const all = { ...options, tls: tls[name] };
          if (settings.against.includes("ours")) field.set(`ours ${name}`, () => oursTransfer(all));
          if (settings.against.includes("to-qemu"))
            field.set(`to-qemu ${name}`, () => transferToQemu(all));
          if (settings.against.includes("qemu"))
            field.set(`qemu ${name}`, () => qemuMigration(all));
        }
        const title = `${kind} ${compression} ${channels}: `;
        const runs = await takeTurns(field, {
          runs: settings.runs,
          idleSeconds: 1,
          warmGib: () => 0,
          title,
        });
        for (const [name, list] of runs) {
          rows.set(title + name, summarize(list, settings.runs, content.imageBytes));
        }
        if (kind !== "random" || !settings.against.includes("native")) continue;
        const passes: (readonly [number, number])[] = [];
        for (let run = 0; run < settings.runs; run++) {
          passes.push(await native(folder, join(tls.psk!.sender, "keys.psk"), channels));
        }
        const [speed, cpu] = [0, 1].map((at) => spread(passes.map((pass) => pass[at]!)).median);
        console.log(`${title}native AES-128-GCM ${speed} GiB/s, ${cpu} CPU s/GiB, medians`);
      }
    }
  }
  console.log(table(rows));
  if (settings.json) console.log(JSON.stringify(Object.fromEntries(rows)));
}

await runBenchmark("tls", SETTINGS, main);
