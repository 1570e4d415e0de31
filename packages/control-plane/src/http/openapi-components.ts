/** The components of a description: only those that something refers to, under the names of the contract. */

interface Document {
  components?: { schemas?: Record<string, unknown> };
}

const PREFIX = '#/components/schemas/';

/**
 * Each schema comes in two: what is taken (`SandboxInput`) and what is answered (`Sandbox`). Where only the first is
 * used, or both say the same, it gets the plain name.
 */
export function prune<T extends Document>(document: T): T {
  const all = document.components?.schemas ?? {};
  const { schemas: _, ...components } = document.components ?? {};
  const used = new Set<string>();
  const visit = (value: unknown): void => {
    for (const name of references(value)) {
      if (used.has(name)) continue;
      used.add(name);
      visit(all[name]);
    }
  };
  visit({ ...document, components });

  const names = new Map<string, string>();
  for (const name of used) {
    const plain = name.replace(/Input$/, '');
    const same = !used.has(plain) || JSON.stringify(all[plain]) === JSON.stringify(all[name]);
    names.set(name, same ? plain : name);
  }
  const schemas = Object.fromEntries(
    [...used].sort().map((name) => [names.get(name), all[name]] as [string, unknown]),
  );
  return rename({ ...document, components: { ...components, schemas } }, names) as T;
}

function references(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) => {
    if (key === '$ref' && typeof child === 'string' && child.startsWith(PREFIX))
      return [child.slice(PREFIX.length)];
    return references(child);
  });
}

function rename(value: unknown, names: Map<string, string>): unknown {
  if (Array.isArray(value)) return value.map((each) => rename(each, names));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => {
      if (key !== '$ref' || typeof child !== 'string' || !child.startsWith(PREFIX))
        return [key, rename(child, names)];
      const name = child.slice(PREFIX.length);
      return [key, PREFIX + (names.get(name) ?? name)];
    }),
  );
}
