/**
 * The same program from everywhere a program may run: workers have to find their code in each case.
 * From source, all other tests do it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cp, mkdir, readdir, rename, symlink } from "node:fs/promises";
import { join } from "node:path";
import { LimitMs } from "./kit/limits.ts";
import { runCommand, type ProgramEnd } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun, repositoryRoot } from "./setup/command.ts";

/** Sender and receiver with all kinds of workers, on one event loop. */
const PROGRAM = `
import { connect, listen, RamBlock } from "multifd";
import { memoryDevice } from "multifd/device";

const state = new SharedArrayBuffer(8192);
const block = RamBlock.allocate("pc.ram", 4 << 20);
for (const [index, view] of [...block.views(4096)].entries()) if (index % 3) view.fill(index);
for (const compression of ["none", "zlib", "zstd"] as const) {
  const common = { channels: 3, compression, deviceStateCompressed: true };
  const copy = new SharedArrayBuffer(state.byteLength);
  new Uint8Array(state).fill(compression.length);
  const device = (buffer: SharedArrayBuffer) => memoryDevice({ idstr: "cache", buffer });
  await using receiver = await listen({ endpoint: "127.0.0.1:0", devices: [device(copy)], ...common });
  const endpoint = receiver.endpoint;
  await using sender = await connect({ endpoint, blocks: [block], verify: true, ...common });
  await sender.registerDevice(device(state));
  await sender.send({ rounds: 2 });
  await Promise.all([sender.complete(), receiver.complete()]);
  const same = (left: Uint8Array, right: Uint8Array) => Buffer.compare(left, right) === 0;
  const equal =
    same(receiver.blocks[0]!.view(0, block.bytes), block.view(0, block.bytes)) &&
    same(new Uint8Array(copy), new Uint8Array(state));
  console.log(compression, equal ? "equal" : "DIFFERENT");
}
`;

const EXPECTED = {
  status: 0,
  killed: false,
  stdout: "none equal\nzlib equal\nzstd equal\n",
  stderr: "",
};

let directory: TemporaryFolder;

function runIn(cwd: string, command: readonly string[]): Promise<ProgramEnd> {
  return runCommand(command, { cwd });
}

/** Packs the library, installs it in a project elsewhere, and puts the program there. */
beforeAll(async () => {
  directory = new TemporaryFolder();
  const destination = directory.file("packed");
  await mkdir(destination);
  const pack = [bun, "pm", "pack", "--destination", destination];
  expect(await runIn(repositoryRoot, pack)).toMatchObject({ status: 0 });
  const [tarball = ""] = await readdir(destination);

  const project = directory.file("project");
  await mkdir(project);
  await Bun.write(join(project, "package.json"), '{ "name": "user", "type": "module" }');
  const add = [bun, "add", "--offline", join(destination, tarball)];
  expect(await runIn(project, add)).toMatchObject({ status: 0 });
  await Bun.write(join(project, "program.ts"), PROGRAM);
}, LimitMs.fixture);

afterAll(async () => {
  directory[Symbol.dispose]();
});

test("multifd/package holds what it needs and no more", async () => {
  const installed = directory.file("project", "node_modules", "multifd");
  const names = (await readdir(installed)).filter((name) => !name.startsWith(".")).toSorted();
  const expected = ["CHANGELOG.md", "LICENSE", "README.md", "docs", "ffi", "lib", "mod.ts"];
  expect(names).toEqual([...expected, "package.json", "types"]);
  for (const program of ["entry", "channel_entry"]) {
    const bundle = Bun.file(join(installed, "lib", `${program}.bundle.txt`));
    expect(bundle.size).toBeGreaterThan(10_000);
  }
  const { dependencies, main, exports } = (await Bun.file(
    join(installed, "package.json"),
  ).json()) as {
    dependencies?: object;
    main?: string;
    exports?: Record<string, { types: string; default: string }>;
  };
  expect([dependencies, main]).toEqual([undefined, undefined]);
  const topics = [...new Bun.Glob("*.ts").scanSync(join(repositoryRoot, "lib", "subpaths"))];
  const subpaths = topics.toSorted().map((file) => `./${file.replace(/\.ts$/, "")}`);
  expect(Object.keys(exports ?? {})).toEqual([".", ...subpaths]);
  for (const { types, default: code } of Object.values(exports ?? {})) {
    for (const file of [types, code])
      expect(await Bun.file(join(installed, file)).exists()).toBe(true);
  }
});

test(
  "multifd/package has types that pass with the options of bun init",
  async () => {
    const project = directory.file("project");
    const compilerOptions = {
      lib: ["ESNext"],
      target: "ESNext",
      module: "Preserve",
      moduleDetection: "force",
      moduleResolution: "bundler",
      types: ["bun"],
      verbatimModuleSyntax: true,
      noEmit: true,
      strict: true,
      skipLibCheck: true,
      noFallthroughCasesInSwitch: true,
      noUncheckedIndexedAccess: true,
      noImplicitOverride: true,
    };
    const configuration = { compilerOptions, files: ["program.ts"] };
    await Bun.write(join(project, "tsconfig.json"), JSON.stringify(configuration));
    for (const name of ["@types", "bun-types"]) {
      const target = join(repositoryRoot, "node_modules", name);
      await symlink(target, join(project, "node_modules", name));
    }
    const { status, stdout, stderr } = await runIn(project, [bun, "check", "--no-script"]);
    expect(stdout + stderr).toContain("No type errors in 1 file");
    expect(status).toBe(0);
  },
  LimitMs.fixture,
);

test(
  "multifd/package transfers when installed as a dependency",
  async () => {
    expect(await runIn(directory.file("project"), [bun, "program.ts"])).toEqual(EXPECTED);
  },
  LimitMs.fixture,
);

test(
  "multifd/bundle transfers from one file of bun build, with nothing beside it",
  async () => {
    const project = directory.file("project");
    const alone = directory.file("bundle");
    await mkdir(alone);
    const build = [bun, "build", "program.ts", "--target=bun", "--outfile=bundle.js"];
    expect(await runIn(project, build)).toMatchObject({ status: 0 });
    await rename(join(project, "bundle.js"), join(alone, "bundle.js"));
    expect(await runIn(alone, [bun, "bundle.js"])).toEqual(EXPECTED);
  },
  LimitMs.fixture,
);

test(
  "multifd/bundle transfers from a minified folder with several entries",
  async () => {
    const project = directory.file("project");
    await cp(join(project, "program.ts"), join(project, "other.ts"));
    const outdir = directory.file("split");
    const options = ["--target=bun", "--splitting", "--minify", `--outdir=${outdir}`];
    const build = [bun, "build", "program.ts", "other.ts", ...options];
    expect(await runIn(project, build)).toMatchObject({ status: 0 });
    expect(await runIn(outdir, [bun, "other.js"])).toEqual(EXPECTED);
  },
  LimitMs.fixture,
);

test(
  "multifd/compiled transfers from a binary of bun build --compile",
  async () => {
    const alone = directory.file("compiled");
    await mkdir(alone);
    const binary = join(alone, "program");
    const build = [bun, "build", "program.ts", "--compile", `--outfile=${binary}`];
    expect(await runIn(directory.file("project"), build)).toMatchObject({ status: 0 });
    expect(await runIn(alone, [binary])).toEqual(EXPECTED);
  },
  LimitMs.fixture,
);
