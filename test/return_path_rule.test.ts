import { expect, test } from "bun:test";
import {
  connect,
  listen,
  listenBlocking,
  record,
  RamBlock,
  relay,
  type ListenOptions,
  type SessionWarning,
} from "../mod.ts";
import { missingReturnPath } from "../lib/session/session_warning.ts";
import { thrownBy, rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { testTimeouts } from "./kit/limits.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun, repositoryRoot } from "./setup/command.ts";

const block = RamBlock.allocate("pc.ram", 200 * 4096);
fillBlock(block, 3);

async function sendTo(endpoint: string, returnPath: boolean): Promise<void> {
  await using sender = await connect({
    endpoint,
    returnPath,
    timeouts: testTimeouts,
    blocks: [block],
  });
  await sender.send();
  await sender.complete();
}

/** Options that keep what is warned of. */
function warned(): { warnings: SessionWarning[]; options: Partial<ListenOptions> } {
  const warnings: SessionWarning[] = [];
  const onWarning = (warning: SessionWarning): void => void warnings.push(warning);
  return { warnings, options: { onWarning, timeouts: testTimeouts } };
}

test("missingReturnPath() refuses, or tells what is at stake", () => {
  const error = thrownBy(() => missingReturnPath("relay migration", true));
  expect(error.code).toBe("ERR_MULTIFD_STREAM_RETURN_PATH");
  expect(error.message).toMatch(/^Cannot relay migration: .* capability return-path on; /);
  expect(missingReturnPath("relay migration", false).code).toBe("WARN_MULTIFD_RETURN_PATH");
});

test("Receiver warns of a sender without a return path, and of no other", async () => {
  for (const returnPath of [true, false]) {
    const { warnings, options } = warned();
    await using receiver = await listen({ endpoint: "127.0.0.1:0", ...options });
    const announced = receiver.announced().then(() => warnings.length);
    await Promise.all([sendTo(receiver.endpoint, returnPath), receiver.complete()]);
    const codes: SessionWarning["code"][] = returnPath ? [] : ["WARN_MULTIFD_RETURN_PATH"];
    expect(warnings.map(({ code }) => code)).toEqual(codes);
    expect(await announced).toBe(codes.length); // before the first page, and not at the end
    expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
  }
});

test("Receiver fails with what onWarning throws", async () => {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    timeouts: testTimeouts,
    onWarning: () => {
      throw new Error("no such source here");
    },
    finalize: () => {}, // comes after the warning, so that the failure is not too late
  });
  const failure = rejectionOf(receiver.complete());
  await sendTo(receiver.endpoint, false).catch(() => {});
  expect((await failure).message).toBe("no such source here");
});

test("listen(), record() and relay() refuse a source without a return path before its memory is sent", async () => {
  using folder = new TemporaryFolder();
  const common = { endpoint: "127.0.0.1:0", requireReturnPath: true, timeouts: testTimeouts };
  await using destination = await listen({ endpoint: "127.0.0.1:0", timeouts: testTimeouts });
  const output = folder.file("guest");
  const sessions = [
    await listen(common),
    await record({ ...common, output }),
    await relay({
      listen: { endpoint: "127.0.0.1:0" },
      connect: { endpoint: destination.endpoint },
      requireReturnPath: true,
      timeouts: testTimeouts,
    }),
  ];
  const relayed = rejectionOf(destination.complete());
  for (const session of sessions) {
    await using refusing = session;
    const failure = rejectionOf(refusing.complete());
    // A sender of 800 KB may have it all in its sockets; what counts is that nobody takes it.
    await sendTo(refusing.endpoint, false).catch(() => {});
    expect(await failure).toMatchObject({
      code: "ERR_MULTIFD_STREAM_RETURN_PATH",
      side: "destination",
      phase: "setup",
    });
  }
  await relayed;
  expect(await Bun.file(output).exists()).toBe(false);
});

test("record() and relay() take a source with a return path when they require it", async () => {
  await using receiver = await listen({ endpoint: "127.0.0.1:0", timeouts: testTimeouts });
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0" },
    connect: { endpoint: receiver.endpoint },
    requireReturnPath: true,
    timeouts: testTimeouts,
  });
  const done = Promise.all([relaying.complete(), receiver.complete()]);
  await sendTo(relaying.endpoint, true);
  await done;
  expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
});

test("listenBlocking() refuses a source without a return path when told to", async () => {
  using receiver = listenBlocking({
    endpoint: "127.0.0.1:0",
    requireReturnPath: true,
    timeouts: testTimeouts,
  });
  const sent = rejectionOf(sendTo(receiver.endpoint, false));
  await Bun.sleep(0); // the sender's thread needs this one no more until it has connected
  expect(() => receiver.complete()).toThrow("must have capability return-path on");
  expect(await sent).toBeInstanceOf(Error);
});

test("qemu_record refuses a source without a return path unless told otherwise, and warns then", async () => {
  using folder = new TemporaryFolder();
  for (const options of [[], ["--no-require-return-path"]]) {
    const output = folder.file(`guest${options.length}`);
    const program = Bun.spawn(
      [
        bun,
        "examples/qemu_record.ts",
        "--listen",
        `unix:${folder.file("socket")}`,
        "--output",
        output,
        ...options,
      ],
      { cwd: repositoryRoot, stdout: "pipe", stderr: "pipe", timeout: 40_000 },
    );
    while (
      !(await Bun.file(folder.file("socket"))
        .stat()
        .catch(() => undefined))
    )
      await Bun.sleep(50);
    await sendTo(`unix:${folder.file("socket")}`, false).catch(() => {});
    const stderr = await new Response(program.stderr).text();
    const status = await program.exited;
    if (options.length === 0) {
      expect(stderr).toContain(
        "the source has opened no return path, must have capability return-path on",
      );
      expect(status).toBe(1);
    } else {
      expect(stderr).toContain("warning: The source has opened no return path");
      expect(status).toBe(0);
    }
    expect(await Bun.file(output).exists()).toBe(status === 0);
  }
});
