// Draws the contract with Scalar. What the page needs to know is on its element `reference`: where the contract
// is (data-contract), and whether a service is there to try it on (data-try).
const reference = document.getElementById('reference');

// What Scalar does not show: the cookie that an operation needs, who may call it, what it leaves in the trail.
function factsOf(operation, contract) {
  const cookieOf = (scheme) => contract.components.securitySchemes[scheme].name;
  const choices = (operation.security ?? contract.security).map((needed) => Object.keys(needed).map(cookieOf));
  const extensions = Object.keys(operation).filter((name) => name.startsWith('x-'));
  return [
    `cookie: ${choices.map((cookies) => cookies.join(' and ') || 'none').join(' or ') || 'none'}`,
    ...extensions.map((name) => `${name}: ${[operation[name]].flat().join(', ')}`),
  ];
}

async function readContract() {
  const contract = await (await fetch(reference.dataset.contract)).json();
  const methods = Object.values(contract.paths).flatMap((path) => Object.values(path));
  for (const operation of methods.filter((method) => method.operationId)) {
    const facts = factsOf(operation, contract).map((fact) => `\`${fact}\``);
    operation.description = `${operation.description ?? ''}\n\n${facts.join(' ')}`;
    delete operation.security;
  }
  // Scalar would ask for the value of the cookies. They are HttpOnly: only the operation `login` sets them.
  delete contract.security;
  delete contract.components.securitySchemes;
  return contract;
}

function openGuides() {
  reference.querySelector('aside button[aria-expanded="false"]')?.click();
}

async function draw() {
  Scalar.createApiReference(reference, {
    content: await readContract(),
    customFetch: (input, options) => fetch(input, { ...options, credentials: 'include' }),
    hideTestRequestButton: !('try' in reference.dataset),
    // So that an address says which operation it leads to: #tag/authentication/login
    generateOperationSlug: ({ operationId }) => operationId,
    defaultOpenAllTags: true,
    onLoaded: openGuides,
    documentDownloadType: 'none',
    hiddenClients: true,
    hideDarkModeToggle: true, // it follows the browser
    // Nothing that another host would have to answer
    withDefaultFonts: false,
    telemetry: false,
    proxyUrl: '',
    hideClientButton: true,
    showDeveloperTools: 'never',
    agent: { disabled: true },
    mcp: { disabled: true },
  });
}

// What Scalar leaves out for those who use the keyboard or hear the page; whatever it draws passes here.
const MISSING = [
  ['code.hljs:not([tabindex])', 'tabindex', '0'],
  ['.cm-scroller[tabindex="-1"]', 'tabindex', '0'],
  ['.group\\/copy-button:not([aria-label])', 'aria-label', 'Copy'],
  ['.cm-content:not([aria-label])', 'aria-label', 'Content'],
  ['button[role="none"]', 'role', 'button'],
  ['input[role="combobox"]:not([aria-expanded])', 'aria-expanded', 'true'], // the search, with its results below
  ['div[role="combobox"]:not([aria-expanded])', 'aria-expanded', 'false'],
];

function complete() {
  for (const [selector, attribute, value] of MISSING) {
    for (const element of document.querySelectorAll(selector)) element.setAttribute(attribute, value);
  }
}

new MutationObserver(complete).observe(document.body, { childList: true, subtree: true });
draw().catch((error) => {
  reference.textContent = 'The contract could not be loaded. Is the service running?';
  throw error;
});
