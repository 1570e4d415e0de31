/** The API's description as one page without scripts: every route, what it takes and answers, and the schemas. */

interface Schema {
  $ref?: string;
  type?: string | string[];
  const?: unknown;
  enum?: unknown[];
  items?: Schema;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  required?: string[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  description?: string;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  maxLength?: number;
  pattern?: string;
}
type Content = Record<string, { schema?: Schema }>;
interface Operation {
  summary?: string;
  description?: string;
  tags?: string[];
  security?: unknown[];
  parameters?: { name: string; in: string; required?: boolean; description?: string; schema?: Schema }[];
  requestBody?: { content: Content; required?: boolean };
  responses?: Record<string, { $ref?: string; description?: string; content?: Content }>;
  'x-websocket'?: { receives: Schema[]; sends: Schema[] };
}
interface Described {
  info: { title: string; description?: string };
  tags?: { name: string; description?: string }[];
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema>; responses: Record<string, { description: string }> };
}

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
code, .type { font-family: ui-monospace, monospace; font-size: 13px }
details { border: 1px solid #ddd; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer } summary b { display: inline-block; min-width: 4.2rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }
h4 { margin: .8rem 0 .2rem } .quiet { color: #666 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #161616 } details, h2 { border-color: #444 } a { color: #8bf } .quiet { color: #999 }
}`;

export function docsPage(description: object): string {
  const document = description as Described;
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  const tags = new Set([
    ...(document.tags ?? []).map(({ name }) => name),
    ...operations.flatMap(({ operation }) => operation.tags ?? []),
  ]);
  const sections = [...tags].map((name) => {
    const about = document.tags?.find((tag) => tag.name === name)?.description;
    const own = operations.filter(({ operation }) => operation.tags?.includes(name));
    if (own.length === 0) return '';
    const each = own.map(({ path, method, operation }) => operationHtml(document, path, method, operation));
    return `<h2 id="${text(name)}">${text(name)}</h2><p>${prose(about ?? '')}</p>${each.join('')}`;
  });
  const schemas = Object.entries(document.components.schemas).map(
    ([name, schema]) =>
      `<details id="schema-${text(name)}"><summary><code>${text(name)}</code></summary>${schemaHtml(schema)}</details>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${text(document.info.title)} API</title><style>${STYLE}</style></head><body>
<h1>${text(document.info.title)} API</h1>
${(document.info.description ?? '')
  .split('\n\n')
  .map((part) => `<p>${prose(part)}</p>`)
  .join('')}
<p><a href="/openapi.yaml">openapi.yaml</a></p>
${sections.join('\n')}
<h2 id="schemas">schemas</h2>
${schemas.join('\n')}
</body></html>
`;
}

function operationHtml(document: Described, path: string, method: string, operation: Operation): string {
  const { summary = '', description, parameters = [], requestBody, responses = {}, security } = operation;
  const socket = operation['x-websocket'];
  const parts = [
    description === undefined ? '' : `<p>${prose(description)}</p>`,
    security?.length === 0 ? '<p class="quiet">Needs no key.</p>' : '',
    parameters.length === 0 ? '' : `<h4>Parameters</h4>${table(parameters.map(parameterRow))}`,
    requestBody
      ? `<h4>Body${requestBody.required === false ? ' (optional)' : ''}</h4>${contentHtml(requestBody.content)}`
      : '',
    socket ? `<h4>Messages</h4><p>taken: ${links(socket.receives)}<br>sent: ${links(socket.sends)}</p>` : '',
    `<h4>Answers</h4>${table(Object.entries(responses).map(([status, response]) => answerRow(document, status, response)))}`,
  ];
  return `<details><summary><b>${method.toUpperCase()}</b> <code>${text(path)}</code> <span class="quiet">${prose(summary)}</span></summary>${parts.join('')}</details>`;
}

function parameterRow(parameter: NonNullable<Operation['parameters']>[number]): string[] {
  const { name, in: where, required, description, schema } = parameter;
  const about = description ?? schema?.description ?? '';
  return [
    `<code>${text(name)}</code>${required ? '' : '?'}`,
    text(where),
    schema ? typeHtml(schema) : '',
    prose(about),
  ];
}

function answerRow(
  document: Described,
  status: string,
  response: NonNullable<Operation['responses']>[string],
): string[] {
  const name = response.$ref?.split('/').at(-1);
  const { description = '', content } = {
    ...response,
    ...(name !== undefined && document.components.responses[name]),
  } as typeof response;
  const types = Object.entries(content ?? {}).map(([type, { schema }]) =>
    type === 'application/json' && schema ? typeHtml(schema) : `<span class="type">${text(type)}</span>`,
  );
  return [text(status), types.join(' '), prose(description)];
}

function contentHtml(content: Content): string {
  return Object.entries(content)
    .map(([type, { schema }]) => {
      const head = type === 'application/json' ? '' : `<p class="type">${text(type)}</p>`;
      return head + (schema ? schemaHtml(schema) : '');
    })
    .join('');
}

function schemaHtml(schema: Schema): string {
  const about = schema.description === undefined ? '' : `<p>${prose(schema.description)}</p>`;
  if (schema.properties === undefined) return `${about}<p>${typeHtml(schema)}</p>`;
  const rows = Object.entries(schema.properties).map(([name, field]) => [
    `<code>${text(name)}</code>${schema.required?.includes(name) ? '' : '?'}`,
    typeHtml(field),
    prose(field.description ?? ''),
  ]);
  return about + table(rows);
}

function typeHtml(schema: Schema): string {
  const choices = schema.anyOf ?? schema.oneOf;
  if (schema.$ref !== undefined) return link(schema);
  if (choices !== undefined) return choices.map(typeHtml).join(' | ');
  if (schema.allOf !== undefined) return schema.allOf.map(typeHtml).join(' & ');
  if (schema.const !== undefined) return span(JSON.stringify(schema.const));
  if (schema.enum !== undefined) return span(schema.enum.map((value) => JSON.stringify(value)).join(' | '));
  if (schema.items !== undefined) return `${typeHtml(schema.items)}<span class="type">[]</span>`;
  if (schema.properties !== undefined) {
    const fields = Object.entries(schema.properties).map(
      ([name, field]) => `${span(name)}${schema.required?.includes(name) ? '' : '?'}: ${typeHtml(field)}`,
    );
    return `{ ${fields.join(', ')} }`;
  }
  const range = [
    schema.minimum !== undefined && `≥ ${schema.minimum}`,
    schema.maximum !== undefined && schema.maximum < Number.MAX_SAFE_INTEGER && `≤ ${schema.maximum}`,
    schema.maxLength !== undefined && `at most ${schema.maxLength} characters`,
    schema.pattern !== undefined && `/${schema.pattern}/`,
    schema.default !== undefined && `default ${JSON.stringify(schema.default)}`,
  ].filter((part) => part !== false);
  const base = [schema.type ?? 'anything'].flat().join(' | ');
  const of =
    typeof schema.additionalProperties === 'object' ? ` of ${typeHtml(schema.additionalProperties)}` : '';
  return `${span(base)}${of}${range.length === 0 ? '' : ` <span class="quiet">${text(range.join(', '))}</span>`}`;
}

const span = (content: string) => `<span class="type">${text(content)}</span>`;

function link({ $ref = '' }: Schema): string {
  const name = $ref.split('/').at(-1) ?? '';
  return `<a class="type" href="#schema-${text(name)}">${text(name)}</a>`;
}

const links = (schemas: Schema[]) => schemas.map(link).join(', ');

function table(rows: string[][]): string {
  return `<table>${rows.map((row) => `<tr>${row.map((cell) => `<td>${cell}</td>`).join('')}</tr>`).join('')}</table>`;
}

function text(plain: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return plain.replace(/[&<>"']/g, (character) => entities[character]!);
}

/** Text in which `code` is code. */
function prose(plain: string): string {
  return text(plain).replace(/`([^`]+)`/g, '<code>$1</code>');
}
