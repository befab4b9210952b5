/**
 * The life of a file channel's thread: opens the file, works on one pass per message, closes.
 *
 * @module
 */
import { Errno } from "../../ffi/libc.ts";
import { StatisticsTable } from "../engine/statistics.ts";
import { duplicateDescriptor, OpenedFile } from "../storage/opened_file.ts";
import { ChannelFile } from "./channel_file.ts";
import { FileChannel, type PageFile } from "./file_channel.ts";
import { FileBlock, FileRound } from "./file_round.ts";
import { SessionControl } from "../sync/session_control.ts";
import type {
  FileChannelCommand,
  FileChannelJob,
  FileChannelReply,
} from "./file_channel_messages.ts";
import { threadPort } from "../thread/thread_port.ts";

/** Serves passes until the caller closes the channel or the session stops. */
export async function runFileChannel(job: FileChannelJob): Promise<void> {
  const { channel, mode, path, detectZeroPages } = job;
  const control = new SessionControl(job.control);
  const port = threadPort();
  const { promise: closed, resolve: close } = Promise.withResolvers<void>();
  const attempt = async (step: () => Promise<void> | void): Promise<void> => {
    try {
      await step();
    } catch (error) {
      const side = mode === "read" ? "destination" : "source";
      control.fail(error, { side, channel, peer: path });
    }
    port.postMessage({ ok: !control.stopping } satisfies FileChannelReply);
  };
  let file: PageFile | undefined;
  let worker: FileChannel | undefined;
  try {
    await attempt(async () => {
      const round = new FileRound(job.round);
      file = await openPageFile(job, round);
      worker = new FileChannel({
        mode,
        detectZeroPages,
        file,
        blocks: job.blocks.map((block) => new FileBlock(block)),
        round,
        control,
        counters: new StatisticsTable(job.statistics).channel(channel),
      });
    });
    port.onMessage((message) => {
      const command = message as FileChannelCommand;
      if (command.kind === "close") close();
      else void attempt(() => worker?.run());
    });
    await closed;
  } finally {
    file?.[Symbol.dispose]();
  }
}

async function openPageFile(job: FileChannelJob, round: FileRound): Promise<PageFile> {
  const { path, fd, mode, seekTable, direct } = job;
  using given = new OpenedFile(path, duplicateDescriptor(path, fd));
  if (seekTable === undefined) return new ChannelFile(given, mode, direct, round);
  // Frames lie at odd places, so the kernel would refuse to bypass its cache for them.
  if (direct) round.refuseDirect(Errno.EINVAL);
  // Loaded only where it is needed: a thread that starts later finds less to do.
  const { snapshotSource } = await import("./snapshot_source.ts");
  const source = snapshotSource(given.duplicate(), seekTable);
  return {
    read: (address, bytes, offset) => source.read(address, bytes, offset),
    write: () => {
      throw new TypeError(`Cannot write ${path}: it is stored compressed`);
    },
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}
