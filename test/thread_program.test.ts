/** The programs of threads: what they load, that they are current, and that no failure is silent. */
import { expect, test } from "bun:test";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { LimitMs } from "./kit/limits.ts";
import { runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun, repositoryRoot } from "./setup/command.ts";
import { buildThreadProgram } from "./setup/thread_programs.ts";

/** Every further one costs every channel's start some 0.05 ms. */
const CHANNEL_PROGRAM_KIB_MAX = 110;

test("the channels' program is small, and no program loads modules of the runtime", async () => {
  const channels = await buildThreadProgram("channel_entry", repositoryRoot);
  expect(importsOf(channels)).toEqual(new Set(["bun:ffi"]));
  const program = channels.slice(channels.indexOf("\n"));
  expect(program.length / 1024).toBeLessThan(CHANNEL_PROGRAM_KIB_MAX);
  const others = importsOf(await buildThreadProgram("entry", repositoryRoot));
  expect(others).toEqual(new Set(["bun:ffi"]));
});

function importsOf(text: string): Set<string | undefined> {
  const imports = text.matchAll(/\b(?:from|import|require)\s*\(?\s*"([^"]+)"/g);
  return new Set([...imports].map((match) => match[1]));
}

test(
  "a program is run as long as its sources are what it was built from, and no longer",
  async () => {
    using folder = new TemporaryFolder();
    const root = folder.file("copy");
    await mkdir(root);
    for (const part of ["lib", "ffi", "package.json"]) {
      await cp(join(repositoryRoot, part), join(root, part), { recursive: true });
    }
    const program = `
    const { programUrls } = await import(${JSON.stringify(join(root, "lib/thread/thread_program.ts"))});
    console.log(programUrls().channel_entry.split(":")[0]);`;
    const kind = async (): Promise<string> => {
      const { stdout, stderr } = await runCommand([bun, "-e", program]);
      return (stdout + stderr).trim();
    };
    const bundle = join(root, "lib", "channel_entry.bundle.txt");
    await Bun.file(bundle)
      .delete()
      .catch(() => {});
    expect(await kind()).toBe("file"); // not built
    await Bun.write(bundle, await buildThreadProgram("channel_entry", root));
    expect(await kind()).toBe("blob");
    const source = join(root, "lib", "engine", "send_channel.ts");
    const text = await Bun.file(source).text();
    await Bun.write(source, text); // newer, and the same
    expect(await kind()).toBe("blob");
    await Bun.write(source, `${text}// changed`);
    expect(await kind()).toBe("file");
    await Bun.write(source, text);
    expect(await kind()).toBe("blob");
    await Bun.file(source).delete();
    expect(await kind()).toBe("file");
    await Bun.write(bundle, "console.log(1)");
    expect(await kind()).toBe("file");
  },
  LimitMs.fixture,
);

test(
  "whatever ends a thread, its maker hears of it, and the process ends",
  async () => {
    const program = join(repositoryRoot, "test", "fixtures", "thread_traps.ts");
    const { status, killed, stdout } = await runCommand([bun, program]);
    const lines = stdout.trim().split("\n");
    expect(lines).toEqual([
      "throw: thrown, ended",
      "reject: rejected, ended",
      "exit: no error, ended",
      "stray: stray, ended",
      "nothing: no error, ended",
      'no program: Expected ";" but found "is", ended',
      "blocked: thrown true",
      "echo: 1 2 last",
    ]);
    expect({ status, killed }).toEqual({ status: 0, killed: false });
  },
  LimitMs.fixture,
);
