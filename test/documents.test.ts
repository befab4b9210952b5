/** Keeps the documents true: their programs run, and the README's tables name what the code has. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { capabilities, COMPRESSION_METHODS } from "../mod.ts";
import { makeImage } from "./kit/example_program.ts";
import { LimitMs } from "./kit/limits.ts";
import { runCommand, type ProgramEnd } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun, repositoryRoot } from "./setup/command.ts";

const readme = readFileSync(join(repositoryRoot, "README.md"), "utf8");

interface Program {
  readonly name: string;
  readonly code: string;
}

const documents = ["README.md", "mod.ts"];
for (const pattern of ["docs/*.md", "lib/subpaths/*.ts"]) {
  documents.push(...new Bun.Glob(pattern).scanSync(repositoryRoot));
}
const programs = documents.toSorted().flatMap(programsOf);

/** The programs in a document, or in the doc comment that a module begins with. */
function programsOf(file: string): Program[] {
  const text = readFileSync(join(repositoryRoot, file), "utf8").replaceAll(/^ \* ?/gm, "");
  const found = [...text.matchAll(/^```ts\n(.*?)^```$/gms)];
  return found.map(([, code = ""], index) => ({ name: `${file}: program ${index + 1}`, code }));
}

/** A folder in which `multifd` is installed as a dependency. */
async function project(): Promise<TemporaryFolder> {
  const directory = new TemporaryFolder();
  await mkdir(directory.file("node_modules"));
  await symlink(repositoryRoot, directory.file("node_modules", "multifd"));
  for (const name of ["@types", "bun-types"]) {
    const target = join(repositoryRoot, "node_modules", name);
    await symlink(target, directory.file("node_modules", name));
  }
  return directory;
}

function runIn(directory: TemporaryFolder, args: string[]): Promise<ProgramEnd> {
  return runCommand([bun, ...args], { cwd: directory.path, timeoutMs: LimitMs.program });
}

test("documents: there are programs to run", () => {
  const from = (file: string): number =>
    programs.filter(({ name }) => name.startsWith(`${file}:`)).length;
  expect(from("README.md")).toBeGreaterThanOrEqual(3);
  expect(from("mod.ts")).toBeGreaterThanOrEqual(1);
});

/** Libraries that a program asks for by name and this machine lacks. */
function missingLibraries(code: string): string[] {
  const engines = capabilities().methods.flatMap((method) => method.engines);
  const missing = engines.filter(
    ({ engine, available }) => !available && code.includes(`"${engine}"`),
  );
  return [...new Set(missing.map(({ library }) => library))];
}

for (const { name, code } of programs) {
  const missing = missingLibraries(code);
  const reason = missing.length === 0 ? "" : ` (skipped: needs ${missing.join(", ")})`;
  const title = `${name} runs and prints what its comments say${reason}`;
  test.skipIf(missing.length > 0)(title, async () => {
    await using directory = await project();
    await Bun.write(directory.file("image.ram"), makeImage(4 << 20));
    await Bun.write(directory.file("program.ts"), code);
    const { status, stdout, stderr } = await runIn(directory, ["program.ts"]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    for (const [, promised = ""] of code.matchAll(/^\s*console\.log\(.*\); \/\/ (.*)$/gm)) {
      expect(stdout.split("\n")).toContain(promised);
    }
  });
}

test("documents: their programs have the right types", async () => {
  await using directory = await project();
  for (const [index, { code }] of programs.entries()) {
    await Bun.write(directory.file(`program_${index}.ts`), code);
  }
  const configuration = {
    extends: join(repositoryRoot, "tsconfig.json"),
    include: ["*.ts"],
    references: [],
    // The library is checked in a project of its own, without this option.
    compilerOptions: { noUncheckedIndexedAccess: false },
  };
  await Bun.write(directory.file("tsconfig.json"), JSON.stringify(configuration));
  const { status, stdout, stderr } = await runIn(directory, ["check", "--no-script"]);
  expect(stdout + stderr).toContain("No type errors");
  expect(status).toBe(0);
});

test("README.md: names every error code's family and nothing else", async () => {
  const used = new Set<string>();
  for (const folder of ["ffi", "lib"]) {
    for await (const file of new Bun.Glob("**/*.ts").scan(join(repositoryRoot, folder))) {
      const text = await Bun.file(join(repositoryRoot, folder, file)).text();
      for (const [family] of text.matchAll(/ERR_MULTIFD_[A-Z]+/g)) used.add(family);
    }
  }
  const documented = [...readme.matchAll(/^\| `(ERR_MULTIFD_[A-Z]+)` /gm)].map(([, code]) => code);
  // Two lists, since a difference of sets is shown as all of both.
  const missing = [...used].filter((family) => !documented.includes(family));
  const unknown = documented.filter((family = "") => !used.has(family));
  expect({ missing, unknown }).toEqual({ missing: [], unknown: [] });
});

test("README.md: names every method, library, Debian package and variable", () => {
  const names = capabilities().libraries.flatMap(({ debianPackage, override }) => [
    debianPackage,
    override,
  ]);
  const missing = [...COMPRESSION_METHODS, ...names].filter(
    (name) => !readme.includes(`\`${name}\``),
  );
  expect(missing).toEqual([]);
});

test("README.md: links lead to files that exist", () => {
  for (const [, path = ""] of readme.matchAll(/\]\((?!https?:)([^)]+)\)/g)) {
    expect({
      path,
      exists: Bun.file(join(repositoryRoot, path)).size > 0 || path === "ffi",
    }).toEqual({ path, exists: true });
  }
});
