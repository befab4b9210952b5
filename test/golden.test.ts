import { expect, test } from "bun:test";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { listen, type CompressionMethod, type Receiver } from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { testTimeouts } from "./kit/limits.ts";

const folder = join(import.meta.dir, "golden");

/** Bytes of pc.ram that differ from `ram.bin.zst` in a recording: the guest was not the same run. */
const differences: Readonly<Record<string, Readonly<Record<number, number>>>> = {
  zlib_2: {
    12288: 0o211,
    12316: 0o210,
    12324: 0o211,
    28648: 0o112,
    28649: 0o251,
    28650: 0o154,
    28651: 0o062,
  },
};

interface GoldenInfo {
  readonly case: { readonly comp: CompressionMethod; readonly channels: number };
  readonly info: {
    readonly ram: {
      readonly normal: number;
      readonly duplicate: number;
      readonly "multifd-bytes": number;
      readonly total: number;
    };
  };
}

async function unpacked(...path: string[]): Promise<Uint8Array> {
  return Bun.zstdDecompressSync(await Bun.file(join(folder, ...path)).bytes());
}

async function infoOf(name: string): Promise<GoldenInfo> {
  return (await Bun.file(join(folder, name, "info.json")).json()) as GoldenInfo;
}

const SHUT_OK = "0001000400000000";

/** Writes one recorded connection; collects what comes back. */
class ReplayedConnection {
  readonly answer: Promise<Buffer>;
  readonly #socket: Socket;
  readonly #connected = Promise.withResolvers<void>();

  constructor(endpoint: string) {
    const [host = "", port = ""] = endpoint.split(":");
    const received: Buffer[] = [];
    const ended = Promise.withResolvers<Buffer>();
    this.answer = ended.promise;
    this.#socket = createConnection({ host, port: Number(port) }, this.#connected.resolve);
    this.#socket.on("data", (chunk: Buffer) => {
      received.push(chunk);
      // As QEMU does when it has been told that everything is in place.
      if (Buffer.concat(received).toString("hex").endsWith(SHUT_OK)) this.#socket.end();
    });
    this.#socket.on("error", this.#connected.reject);
    this.#socket.on("close", () => ended.resolve(Buffer.concat(received)));
  }

  /** Waits for the connection. */
  async open(): Promise<void> {
    await this.#connected.promise;
  }

  /** Writes in pieces that do not care for packets. */
  async write(bytes: Uint8Array, pieceBytes: number): Promise<void> {
    for (let at = 0; at < bytes.byteLength && !this.#socket.destroyed; at += pieceBytes) {
      const more = this.#socket.write(bytes.subarray(at, at + pieceBytes));
      if (!more) {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#socket.once("drain", resolve);
        this.#socket.once("close", resolve);
        await promise;
      }
    }
  }

  /** Says that nothing more will come, as a source does that waits for no answer. */
  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

/** Plays a recording to a receiver as QEMU does: connects everything first, then writes all at once. */
async function replay(
  name: string,
  receiver: Receiver,
  channels: number,
  pieceBytes: number,
): Promise<ReplayedConnection[]> {
  const connections: ReplayedConnection[] = [];
  for (let index = 0; index <= channels; index++) {
    const connection = new ReplayedConnection(receiver.endpoint);
    await connection.open();
    connections.push(connection);
  }
  const writes = connections.map(async (connection, index) => {
    await connection.write(await unpacked(name, `conn${index}.fwd.zst`), pieceBytes);
    if (!(await Bun.file(join(folder, name, "conn0.back")).exists())) connection.end();
  });
  await Promise.all(writes);
  return connections;
}

for (const name of ["none_4_rp_1", "zlib_2", "zstd_2"]) {
  // Pieces of 997 bytes end anywhere: in headers, names, offsets and payloads.
  for (const pieceBytes of [1 << 20, 997]) {
    test(`golden/${name}/pieces-of-${pieceBytes}: a receiver has QEMU's RAM and counters`, async () => {
      const { case: parameters, info } = await infoOf(name);
      await using receiver = await listen({
        endpoint: "127.0.0.1:0",
        channels: parameters.channels,
        compression: parameters.comp,
        uuid: "any",
        machine: "pc-i440fx-10.0",
        capture: true,
        timeouts: testTimeouts,
      });
      const [connections, statistics] = await Promise.all([
        replay(name, receiver, parameters.channels, pieceBytes),
        receiver.complete(),
      ]);
      const image = await unpacked("ram.bin.zst");
      for (const [at, byte] of Object.entries(differences[name] ?? {})) image[Number(at)] = byte;
      const ram = receiver.blocks.find(({ idstr }) => idstr === "pc.ram");
      expect(ram?.bytes).toBe(image.byteLength);
      let at = 0;
      for (const view of ram?.views() ?? []) {
        expect(Buffer.compare(view, image.subarray(at, at + view.byteLength))).toBe(0);
        at += view.byteLength;
      }
      expect(statistics).toMatchObject({
        normalPages: info.ram.normal,
        zeroPages: info.ram.duplicate,
        multifdBytes: info.ram["multifd-bytes"],
        ramBytes: info.ram.total,
      });
      const answer = await connections[0]!.answer;
      const back = Bun.file(join(folder, name, "conn0.back"));
      expect(answer).toEqual((await back.exists()) ? Buffer.from(await back.bytes()) : Buffer.of());
      for (const connection of connections) connection.destroy();
    });
  }
}

test("golden/zstd_2: a receiver that cannot keep device state says so, and tells the sender", async () => {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 2,
    compression: "zstd",
    uuid: "any",
    timeouts: testTimeouts,
  });
  const failure = rejectionOf(receiver.complete());
  const connections = await replay("zstd_2", receiver, 2, 1 << 20);
  expect((await failure).code).toBe("ERR_MULTIFD_STREAM_SECTION");
  for (const connection of connections) connection.destroy();
});

test("golden/zlib_2: a receiver of another method refuses the first packet with pages", async () => {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 2,
    compression: "zstd",
    uuid: "any",
    capture: true,
    timeouts: testTimeouts,
  });
  const failure = rejectionOf(receiver.complete());
  const connections = await replay("zlib_2", receiver, 2, 1 << 20);
  expect(await failure).toMatchObject({
    code: "ERR_MULTIFD_PACKET_METHOD",
    side: "destination",
    phase: "transfer",
  });
  for (const connection of connections) connection.destroy();
});
