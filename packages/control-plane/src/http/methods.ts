/** Which methods a path has, to tell "no such path" (404) from "not with this method" (405). */
export interface RoutePattern {
  url: string;
  methods: string[];
}

export function methodsOf(patterns: readonly RoutePattern[], path: string): string[] {
  const wanted = path.replace(/\/$/, '').split('/');
  const methods = patterns
    .filter(({ url }) => matches(url.split('/'), wanted))
    .flatMap((route) => route.methods);
  return [...new Set(methods)].sort();
}

function matches(pattern: string[], wanted: string[]): boolean {
  return (
    pattern.length === wanted.length &&
    pattern.every((part, index) => (part.startsWith(':') ? wanted[index] !== '' : part === wanted[index]))
  );
}
