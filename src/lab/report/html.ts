// Making HTML and SVG by hand, safely: what comes from outside goes through `escape`, once.

/** Text as it may stand in an element or between double quotes. */
export function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** An element. Attribute values are escaped here; the content is HTML already. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | number>>,
  content = '',
): string {
  const pairs = Object.entries(attributes)
    .map(([key, value]) => ` ${key}="${escape(String(value))}"`)
    .join('');
  return `<${name}${pairs}>${content}</${name}>`;
}

/** What a browser shows of an SVG element under the pointer. */
export function hint(text: string): string {
  return `<title>${escape(text)}</title>`;
}

/** A table; cells are HTML already. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const headRow = head.map((cell) => `<th scope="col">${cell}</th>`).join('');
  const body = rows.map((row) => `<tr>${row.map((cell) => `<td>${cell}</td>`).join('')}</tr>`);
  return `<div class="scroll"><table><thead><tr>${headRow}</tr></thead><tbody>${body.join('\n')}</tbody></table></div>`;
}

/** A command for people to copy. */
export function command(text: string): string {
  return `<code class="command">${escape(text)}</code>`;
}

/** Picture coordinates: two decimals are finer than any screen. */
export function px(value: number): string {
  return String(Math.round(value * 100) / 100);
}
