/**
 * Rules of this repository that no linter knows. They read source text with regular expressions,
 * which is enough because the formatter leaves only one way to write an import or an export.
 */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";

import { outputOf, repositoryRoot } from "./setup/command.ts";

const linesMax = 999;
/** A file of the library that is longer has more than one responsibility. */
const libraryLinesMax = 400;

const files = await projectFiles();
const typescriptFiles = files.filter((file) => file.endsWith(".ts"));
const testFiles = typescriptFiles.filter((file) => /^test\/.*\.test\.ts$/.test(file));
const libraryFiles = typescriptFiles.filter((file) => /^(lib|ffi)\//.test(file));

test("house rules: no file is too long", () => {
  const sources = files.filter((file) => /\.(ts|js|c|h|asm|sh|md)$/.test(file));
  const tooLong = sources.flatMap((file) => {
    const lines = read(file).split("\n").length - 1;
    const max = libraryFiles.includes(file) ? libraryLinesMax : linesMax;
    return lines > max ? [`${file}: ${lines} lines, at most ${max}`] : [];
  });
  expect(tooLong).toEqual([]);
});

test("house rules: file names are snake_case", () => {
  const misnamed = typescriptFiles.filter(
    (file) => !/^([a-z0-9]+(_[a-z0-9]+)*\/)*[a-z0-9]+(_[a-z0-9]+)*(\.test|\.d)?\.ts$/.test(file),
  );
  expect(misnamed).toEqual([]);
});

test("house rules: ffi imports only ffi, lib imports only lib and ffi", () => {
  const wrong = libraryFiles.flatMap((file) => {
    const allowed = file.startsWith("ffi/") ? /^ffi\// : /^(lib|ffi)\//;
    return relativeImports(file)
      .filter((target) => !allowed.test(target))
      .map((target) => `${file} imports ${target}`);
  });
  expect(wrong).toEqual([]);
});

test("house rules: lib and ffi need no npm package, and only ffi/runtime the runtime's modules", () => {
  const outside = libraryFiles.filter((file) => !file.startsWith("ffi/runtime/"));
  const imports = libraryFiles.flatMap((file) => {
    // Those of Node take longer to load than a program of ours; ffi/runtime loads them when needed.
    const allowed = outside.includes(file) ? /^\./ : /^(\.|bun$|bun:)/;
    return importsOf(file)
      .filter((name) => !allowed.test(name))
      .map((name) => `${file} imports ${name}`);
  });
  const globals = outside.filter((file) => /^(?!\s*(?:\*|\/[/*])).*\bBun\./m.test(read(file)));
  expect([...imports, ...globals]).toEqual([]);
});

test("house rules: lib and ffi use descriptors by ffi/libc or the contract of the runtime only", () => {
  // A runtime's own functions may refuse a descriptor that was opened past it.
  const onDescriptors =
    /^(?:f(?:stat|sync|datasync|truncate|chmod|chown|utimes)|readv?|writev?|open|close)(?:Sync)?$/;
  const calls = /\bfileSystem\(\)\.(\w+)|\{([^}]*)\} = fileSystem\(\)/g;
  const wrong = libraryFiles
    .filter((file) => !file.startsWith("ffi/runtime/"))
    .flatMap((file) =>
      [...read(file).matchAll(calls)]
        .flatMap(([, name, names = name ?? ""]) => names.split(",").map((one) => one.trim()))
        .filter((name) => onDescriptors.test(name))
        .map((name) => `${file} uses ${name} of node:fs`),
    );
  expect(wrong).toEqual([]);
});

test("house rules: relative imports name existing files", () => {
  const wrong = typescriptFiles.flatMap((file) =>
    relativeImports(file)
      // Built from its neighbour, and not there before that.
      .filter((target) => !target.endsWith(".bundle.txt"))
      .filter((target) => !existsSync(join(repositoryRoot, target)))
      .map((target) => `${file} imports ${target}`),
  );
  expect(wrong).toEqual([]);
});

test("house rules: no import cycle in lib and ffi, type imports included", () => {
  expect(findCycle(libraryFiles)).toEqual([]);
});

/** Folders and files of lib/ from the ground up; those of one line know nothing of one another. */
const layers = [
  ["errors.ts", "limits.ts", "option_names.ts"],
  ["wire", "sync"],
  ["thread", "storage"],
  ["memory"],
  ["net"],
  ["paging"],
  ["codec"],
  ["engine"],
  ["rehearsal"],
  ["device"],
  ["session"],
  ["recording", "snapshot"],
  ["pages"],
  ["colo", "relay", "qemu"],
  ["capabilities.ts", "entry.ts", "channel_entry.ts"],
  ["subpaths"],
];

test("house rules: imports in lib go down the layers only, type imports included", () => {
  const layerOf = (file: string): number => layers.findIndex((names) => names.includes(part(file)));
  const library = libraryFiles.filter((file) => file.startsWith("lib/"));
  expect(library.filter((file) => layerOf(file) < 0)).toEqual([]);
  const wrong = library.flatMap((file) =>
    relativeImports(file)
      .filter((target) => target.startsWith("lib/") && !target.endsWith(".bundle.txt"))
      .filter((target) => part(target) !== part(file) && layerOf(target) >= layerOf(file))
      .map((target) => `${file} imports ${target}`),
  );
  expect(wrong).toEqual([]);
});

test("house rules: what features are built from names no feature", () => {
  const folders = /^lib\/(?:sync|thread|net|engine|rehearsal|device|session)\//;
  // Comments may name one to say what a part is for; a snapshot of counters is none of a guest.
  const feature =
    /\w*(?:colo(?![nru])|checkpoint|secondar|relay|record(?:er|ing)|restor|snapshot(?!\()|analy)\w*/gi;
  const named = libraryFiles
    .filter((file) => folders.test(file))
    .flatMap((file) => [...codeOf(file).matchAll(feature)].map(([name]) => `${file}: ${name}`));
  expect(named).toEqual([]);
});

test("house rules: only lib/net knows kinds of endpoints and makes connections", () => {
  const wrong = libraryFiles
    .filter((file) => !file.startsWith("lib/net/"))
    .flatMap((file) =>
      [
        /\bendpoint\.kind\b/,
        /\bnew \w*Connection\(/,
        /net\/(?:socket|\w*transport|tcp|\w*unix)\.ts"/,
      ]
        .map((pattern) => pattern.exec(read(file))?.[0])
        .filter((found) => found !== undefined)
        .filter((found) => found !== 'net/transport.ts"')
        .map((found) => `${file}: ${found}`),
    );
  expect(wrong).toEqual([]);
});

test("house rules: mod.ts and lib/subpaths have named re-exports only, and each has a doc comment", () => {
  if (!files.includes("mod.ts")) return;
  const entries = files.filter((file) => /^(mod|lib\/subpaths\/\w+)\.ts$/.test(file));
  const reExport = /^export (?:type )?\{[^}]*\} from "[^"]+";$/gm;
  const more = entries.filter((file) => codeOf(file).replaceAll(reExport, "").trim() !== "");
  expect(more).toEqual([]);
  const text = read("mod.ts");

  const undocumented: string[] = [];
  for (const match of text.matchAll(/^export (?:type )?\{([^}]*)\} from "([^"]+)"/gm)) {
    const file = posix.normalize(match[2] ?? "");
    const lines = read(file).split("\n");
    for (const item of (match[1] ?? "").replaceAll(/\/\/.*/g, "").split(",")) {
      const name = /^\s*(?:type )?(\w+)/.exec(item)?.[1];
      if (name !== undefined && !isDocumented(lines, name)) undocumented.push(`${file}: ${name}`);
    }
  }
  expect(undocumented).toEqual([]);
});

test("house rules: what a file of the library exports has a user elsewhere, and not in tests only", () => {
  const code = new Map(typescriptFiles.map((file) => [file, codeOf(file)]));
  const importers = new Map<string, string[]>();
  for (const file of typescriptFiles) {
    for (const [name, target] of importedNames(file, code.get(file) ?? "")) {
      const key = `${target}: ${name}`;
      importers.set(key, [...(importers.get(key) ?? []), file]);
    }
  }
  const declaration =
    /^export (?:abstract |async )*(?:function\*?|class|const|let|interface|type) (\w+)/gm;
  const unused = libraryFiles.flatMap((file) => {
    const text = code.get(file) ?? "";
    return [...text.matchAll(declaration)].flatMap(([, name = ""]) => {
      const users = importers.get(`${file}: ${name}`) ?? [];
      // What a test looks at from near by, and is used in its own file.
      const isUsedBeside = users.length > 0 && [...text.matchAll(wordOf(name))].length > 1;
      const isUsed = users.some((user) => !/^(?:test|bench|examples)\//.test(user));
      return isUsed || isUsedBeside ? [] : [`${file}: ${name}`];
    });
  });
  expect(unused).toEqual([]);
});

test("house rules: every native symbol and every constant of a group is used", () => {
  const everything = libraryFiles.map(codeOf).join("\n");
  const group = /^(?:export )?const (\w+) = \{\n?([^]*?)\n?\} as const/gm;
  const unused = libraryFiles.flatMap((file) => {
    const text = codeOf(file);
    return [...text.matchAll(group)]
      .flatMap(([, name = "", members = ""]) => {
        // Each on a line of its own, or all of them on the line of the group. Words that threads share
        // begin as 0, so that value has its use where nobody writes it.
        const key = members.includes("\n") ? /^ {2}(\w+): (?!0,)/gm : /(\w+): (?!0,)/g;
        const keys = [...members.matchAll(key)].map(([, found = ""]) => found);
        if (name === "SYMBOLS") {
          return keys.filter((symbol) => !text.includes(`.${symbol}(`));
        }
        // Groups of one name for each constant; another object is used as a whole.
        if (!/^(?:[A-Z][a-z0-9]+)+$/.test(name)) return [];
        return keys.filter((member) => !everything.includes(`${name}.${member}`));
      })
      .map((name) => `${file}: ${name}`);
  });
  expect(unused).toEqual([]);
});

test("house rules: no file holds a path of a developer's machine or a registry's host name", () => {
  const machinePath = /(?<![\w.~$}])\/(?:work|root|home\/\w+)\//;
  const registryHost = /\b(?:registry|deb|security|ftp)\.(?:npmjs|yarnpkg|debian)\.\w+/;
  const wrong = files.flatMap((file) =>
    read(file)
      .split("\n")
      .flatMap((line, index) =>
        machinePath.test(line) || registryHost.test(line) ? [`${file}:${index + 1}: ${line}`] : [],
      ),
  );
  expect(wrong).toEqual([]);
});

test("house rules: every test asserts in its body or in a helper called expect… or assert…", () => {
  const silent = testFiles.flatMap((file) =>
    testCalls(file)
      .filter(({ text }) => !/^\s*test\.(skip|todo)\(/.test(text))
      .filter(({ text }) => !/\b(?:expect|assert)(?:[A-Z]|(?:\.\w+)?\()/.test(text))
      .map(({ line, text }) => `${file}:${line}: ${text.split("\n", 2).join("").trim()}`),
  );
  expect(silent).toEqual([]);
});

test("house rules: every expectation of a promise is awaited", () => {
  // One that is not awaited keeps its failure to itself. Where it is not a statement of its own it
  // is returned, which type and lint rules look after.
  const all = typescriptFiles.filter((file) => file.startsWith("test/"));
  const lost = all.flatMap((file) =>
    [...read(file).matchAll(/^ *expect\((?:[^;]|;(?!\n))*?;\n/gm)]
      .filter(([statement]) => /\)\s*\.(?:rejects|resolves)\b/.test(statement))
      .map(([statement]) => `${file}: ${statement.trim()}`),
  );
  expect(lost).toEqual([]);
});

/** What comments call the documents whose sections they name. */
const documentNames: Record<string, string> = {
  "wire format": "docs/wire_format.md",
  "engine description": "docs/engine.md",
  "main channel description": "docs/main_channel.md",
  "mapped-ram description": "docs/mapped_ram.md",
};

test("house rules: sections that comments and documents name exist", () => {
  const named =
    "RFC \\d+|(?:\\[\\w+\\.md\\]\\()?\\w+\\.md\\)?|" + Object.keys(documentNames).join("|");
  const number = "\\d+(?:\\.\\d+)*";
  const reference = RegExp(
    `(?:(${named}),? )?\\bsections? (${number}(?:(?:,| and| to) ${number})*)`,
    "g",
  );
  const wrong = files
    .filter((file) => /^(?!CHANGELOG).*\.(ts|md)$/.test(file))
    .flatMap((file) => {
      const text = file.endsWith(".md") ? read(file) : commentsOf(file).join("\n\n");
      const lines = text.replaceAll(/\n(?!\n)/g, " ");
      return [...lines.matchAll(reference)].flatMap(([whole, name, numbers = ""]) => {
        if (name?.startsWith("RFC") === true) return [];
        // Without a name before it: the document itself, or the one that the file begins with.
        const first = RegExp(Object.keys(documentNames).join("|")).exec(lines)?.[0];
        const called = name ?? (file.endsWith(".md") ? posix.basename(file) : first);
        const document = documentNames[called ?? ""] ?? `docs/${/\w+\.md/.exec(called ?? "")?.[0]}`;
        const sections = existsSync(join(repositoryRoot, document)) ? sectionsOf(document) : [];
        return numbers.split(/,| and | to /).every((one) => sections.includes(one.trim()))
          ? []
          : [`${file}: ${whole}: ${document} has ${sections.join(", ") || "no such sections"}`];
      });
    });
  expect(wrong).toEqual([]);
});

/** Numbers of a document's sections. */
function sectionsOf(document: string): string[] {
  return [...read(document).matchAll(/^#+ (\d+(?:\.\d+)*)\.? /gm)].map(([, number = ""]) => number);
}

/** The comments of a file without what marks them as such. */
function commentsOf(file: string): string[] {
  const comments = /\/\*[^]*?\*\/|(?:^ *\/\/.*\n)+|\/\/ .*$/gm;
  return [...read(file).matchAll(comments)].map(([comment]) =>
    comment.replaceAll(/^ *(?:\/\*\*?|\*\/|\*|\/\/) ?/gm, ""),
  );
}

/** Calls that declare a test, as text; one that needs something has a word of its own, `qemuTest`. */
function testCalls(file: string): { readonly line: number; readonly text: string }[] {
  const lines = read(file).split("\n");
  return lines.flatMap((first, index) => {
    const indent = /^( *)(?:test|\w+Test|accelerated)(?:\.\w+\(.*\)|\.\w+)?\(/.exec(first)?.[1];
    if (indent === undefined) return [];
    const isEnd = (line: string): boolean => line.startsWith(indent) && /^ *[)}\]].*;$/.test(line);
    const length = first.endsWith(";")
      ? 0
      : lines.slice(index).findIndex((line) => isEnd(line) && !line.startsWith(`${indent} `));
    return [{ line: index + 1, text: lines.slice(index, index + length + 1).join("\n") }];
  });
}

/** All files that belong to the project, those not yet committed included. */
async function projectFiles(): Promise<string[]> {
  const gitList = "ls-files -z --cached --others --exclude-standard";
  const listed = await outputOf(["git", "-C", repositoryRoot, ...gitList.split(" ")]);
  const found =
    listed?.split("\0").filter((file) => file !== "") ??
    // A copy without git's data, or a machine without git.
    (await Array.fromAsync(new Bun.Glob("**/*.{ts,md,json}").scan({ cwd: repositoryRoot })));
  return found
    .filter((file) => !file.startsWith("node_modules/"))
    .filter((file) => existsSync(join(repositoryRoot, file)))
    .toSorted();
}

function read(file: string): string {
  return readFileSync(join(repositoryRoot, file), "utf8");
}

/** The module names in a file's import and re-export statements, and in its import() calls. */
function importsOf(file: string): string[] {
  const statements = /^(?:import|export)\b[\w$*\s{},]*?(?:\bfrom )?"([^"]+)"/gm;
  const calls = /^(?!\s*(?:\*|\/\/)).*\bimport\("([^"]+)"/gm;
  const text = read(file);
  return [...text.matchAll(statements), ...text.matchAll(calls)].map((match) => match[1] ?? "");
}

/** A file without its comments. */
function codeOf(file: string): string {
  return read(file).replaceAll(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, "");
}

function wordOf(name: string): RegExp {
  return RegExp(`\\b${name}\\b`, "g");
}

/** The names that a file's code imports or re-exports, each with the file that it has them from. */
function importedNames(file: string, code: string): [name: string, target: string][] {
  const statements =
    /^(?:import|export) (?:type )?\{([^}]*)\} from "(\.[^"]+)"|\(await import\("(\.[^"]+)"\)\)\.(\w+)/gm;
  return [...code.matchAll(statements)].flatMap(([, names, from, loaded, member]) => {
    const target = posix.join(dirname(file), from ?? loaded ?? "");
    const list = (names ?? member ?? "")
      .split(",")
      .map((item) => /^\s*(?:type )?(\w+)/.exec(item)?.[1]);
    return list.flatMap((name): [string, string][] => (name === undefined ? [] : [[name, target]]));
  });
}

/** A file's relative imports as paths from the repository root. */
function relativeImports(file: string): string[] {
  return importsOf(file)
    .filter((name) => name.startsWith("."))
    .map((name) => posix.join(dirname(file), name));
}

/** The first cycle among the given files as a path whose ends are equal, or an empty list. */
function findCycle(nodes: readonly string[]): string[] {
  const finished = new Set<string>();
  const visit = (file: string, path: readonly string[]): string[] => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (finished.has(file) || !nodes.includes(file)) return [];
    for (const target of relativeImports(file)) {
      const cycle = visit(target, [...path, file]);
      if (cycle.length > 0) return cycle;
    }
    finished.add(file);
    return [];
  };
  for (const file of nodes) {
    const cycle = visit(file, []);
    if (cycle.length > 0) return cycle;
  }
  return [];
}

/** The folder in lib/ that a file is in, or the file itself. */
function part(file: string): string {
  return file.split("/")[1] ?? "";
}

/** Whether the first declaration of a name, which is the one documented, follows a doc comment. */
function isDocumented(lines: readonly string[], name: string): boolean {
  const declaration = RegExp(
    `^export (?:abstract |async |const )*(?:function\\*?|class|const|let|interface|type|enum)? ?${name}\\b`,
  );
  const index = lines.findIndex((line) => declaration.test(line));
  if (index < 1 || lines[index - 1]?.trimEnd().endsWith("*/") !== true) return false;
  const opening = lines.slice(0, index).findLast((line) => line.trimStart().startsWith("/*"));
  return opening?.trimStart().startsWith("/**") === true;
}
