import { expect, test } from "bun:test";
import { MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import { listen, type SyncMode } from "../mod.ts";
import { written } from "./kit/byte_ends.ts";
import { testTimeouts } from "./kit/limits.ts";
import { handshake, packet, rawBlock, RawSource, syncPacket } from "./kit/raw_peer.ts";
import { tableOf } from "./kit/table_blocks.ts";
import { orderlySource, type MainToken, type Source } from "./model/sync_orders.ts";

/** The model looks at all orders; here the threads themselves go through some of them. */
const CASES = process.env["MULTIFD_QEMU_MATRIX"] === undefined ? 12 : 60;
const ROUNDS = 3;
const PAGES = new Map([
  ["X", 5],
  ["own 0", 6],
  ["own 1", 7],
]);

/** A small generator of its own, so that a failing order can be had again. */
function randomsFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** The bytes of each token of the main connection. */
function mainPieces(tokens: readonly MainToken[]): Uint8Array[] {
  let section: "start" | "part" | "end" = "start";
  let sectionsLeft = tokens.filter((token) => token === "EOS").length;
  let open = false;
  return tokens.map((token) =>
    written((out) => {
      const writer = new MainStreamWriter(out);
      if (token === "END") return writer.end({ devices: [] });
      if (!open) {
        if (section === "start") writer.header({ machine: "raw", capabilities: [] });
        writer.beginRamSection(section);
        if (section === "start") writer.blockList(tableOf(rawBlock));
        open = true;
      }
      if (token === "MARKER") return writer.syncMarker();
      writer.endRamSection();
      open = false;
      section = --sectionsLeft > 1 ? "part" : "end";
    }),
  );
}

/** What each connection sends after it has been opened, piece by piece. */
function piecesOf({ main, channels }: Source): Uint8Array[][] {
  const payload = (version: number): Uint8Array => new Uint8Array(4096).fill(version);
  return [
    mainPieces(main),
    ...channels.map((tokens) =>
      tokens.map((token) =>
        token === "SYNC"
          ? syncPacket()
          : packet({ normal: [PAGES.get(token.page) ?? 0], payload: payload(token.version) }),
      ),
    ),
  ];
}

for (const mode of ["round", "section"] satisfies SyncMode[]) {
  test(`a receiver gets the memory that was meant in ${CASES} orders of arrival, sync points by ${mode}`, async () => {
    const source = orderlySource(mode, ROUNDS);
    // The last section is the END, and has a sync point like the others.
    for (let seed = 1; seed <= CASES; seed++) {
      const random = randomsFrom(seed);
      await using receiver = await listen({ endpoint: "127.0.0.1:0", timeouts: testTimeouts });
      using peer = new RawSource(receiver.endpoint);
      const done = receiver.complete();
      const queues = piecesOf(source);
      const connections = [
        await peer.open(queues[0]?.shift()),
        await peer.open(handshake(0)),
        await peer.open(handshake(1)),
      ];
      while (queues.some((queue) => queue.length > 0)) {
        const at = random(queues.length);
        const piece = queues[at]?.shift();
        if (piece === undefined) continue;
        peer.write(connections[at] ?? 0, piece);
        // Long enough for the threads to act on it, sometimes.
        if (random(4) === 0) await Bun.sleep(random(3));
      }
      await done;
      const [block] = receiver.blocks;
      const versions = [...PAGES.values()].map((page) => block?.view(page * 4096, 1)[0]);
      expect([seed, ...versions]).toEqual([seed, ROUNDS, ROUNDS, ROUNDS]);
    }
  }, 180_000);
}
