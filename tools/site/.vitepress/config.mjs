// The site of docs/, as `make docs` builds it: DOCS is that folder, VERSION what it is the documentation of, BASE the path that it is served under.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'

const docs = process.env.DOCS
const root = dirname(docs)
const version = process.env.VERSION || 'main'
const repository = 'https://github.com/chariot-giving/delta'

const pages = {
  'Start': ['index', 'guide', 'concepts', 'migrating-from-river', 'compatibility'],
  'Run it': ['command', 'console', 'operations', 'runbook', 'backup', 'security', 'metrics', 'temporal', 'scaling', 'benchmarks'],
  'Sources and sinks': ['bridge', 'sinks'],
  'Changes of Postgres': ['cdc', 'stream', 'stream-v1'],
  'Message DB': ['messagedb'],
  'Inside': ['architecture', 'design']
}

function readTitle(page) {
  const heading = readFileSync(join(docs, page + '.md'), 'utf8').match(/^# (.+)$/m)
  if (!heading) throw new Error(`docs/${page}.md has no heading of the first level, which is its title`)
  return heading[1].replaceAll('`', '')
}

function listSidebar() {
  const missing = new Set(readdirSync(docs).filter(name => name.endsWith('.md')).map(name => name.slice(0, -3)))
  const sidebar = Object.entries(pages).map(([text, names]) => ({
    text,
    items: names.map(page => {
      missing.delete(page)
      return { text: readTitle(page), link: page === 'index' ? '/' : '/' + page }
    })
  }))
  if (missing.size > 0) throw new Error(`tools/site/.vitepress/config.mjs: no part has the page ${[...missing].join(', ')}`)
  return sidebar
}

// Each release has a site beside those of the others.
function listVersions() {
  const tags = execFileSync('git', ['-C', root, 'tag', '--list', 'v*', '--sort=-v:refname'], { encoding: 'utf8' }).split('\n').filter(Boolean)
  return ['main', ...tags].map(name => ({ text: name, link: `../${name}/`, target: '_self' }))
}

// A heading has the anchor that GitHub gives it, so that one link works in both.
function slugify(heading) {
  return heading.trim().toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-')
}

// What docs link to outside their folder is in the repository.
function linkToRepository(md) {
  const render = md.renderer.rules.link_open || ((tokens, i, options, _env, self) => self.renderToken(tokens, i, options))
  md.renderer.rules.link_open = (tokens, i, options, env, self) => {
    const href = tokens[i].attrGet('href')
    if (href?.startsWith('../')) {
      const [path, fragment] = href.split('#')
      const target = resolve(docs, path)
      if (!existsSync(target)) throw new Error(`${env.relativePath} links to ${href}, which is not in the repository`)
      tokens[i].attrSet('href', `${repository}/blob/${version}/${relative(root, target)}${fragment ? '#' + fragment : ''}`)
    }
    return render(tokens, i, options, env, self)
  }
}

// VitePress looks for pages that links name. This looks for the headings.
function checkAnchors(out) {
  const anchors = {}
  const links = []
  for (const name of readdirSync(out).filter(name => name.endsWith('.html'))) {
    const html = readFileSync(join(out, name), 'utf8')
    anchors[name] = new Set([...html.matchAll(/ id="([^"]+)"/g)].map(match => match[1]))
    for (const [, path, fragment] of html.matchAll(/ href="([^"#:]*)#([^"]+)"/g)) {
      links.push([name, path.split('/').pop() || name, decodeURIComponent(fragment)])
    }
  }
  const dead = links.filter(([, to, fragment]) => !anchors[to]?.has(fragment))
  if (dead.length > 0) throw new Error('dead links:\n' + dead.map(([from, to, fragment]) => `${from}: ${to}#${fragment}`).join('\n'))
  console.log(`${links.length} links to headings, none of them dead`)
}

export default {
  title: 'Delta',
  description: 'Resource synchronization for Go and Postgres, run by Temporal',
  srcDir: 'docs', // a copy, beside the modules that pages import
  base: process.env.BASE || '/',
  cleanUrls: false,
  markdown: { anchor: { slugify }, config: linkToRepository },
  buildEnd: site => checkAnchors(site.outDir),
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    sidebar: listSidebar(),
    nav: [
      { text: 'Guide', link: '/guide' },
      { text: 'Go reference', link: 'https://pkg.go.dev/github.com/chariot-giving/delta/delta' },
      { text: 'Changelog', link: `${repository}/blob/${version}/CHANGELOG.md` },
      { text: version, items: listVersions() }
    ],
    socialLinks: [{ icon: 'github', link: repository }]
  }
}
