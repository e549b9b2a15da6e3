"""A mail server for tests. It keeps every message as a file and refuses where it is told to.

usage: server.py FOLDER PORT plain|starttls|tls [USER PASSWORD]

FOLDER holds certificate.pem and key.pem, and messages/, which is filled. With "3 451" in FOLDER/refuse the
next three recipients are answered 451.
"""

import asyncio
import ssl
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Postbox:
    def __init__(self, folder):
        self.messages = folder / "messages"
        self.refuse = folder / "refuse"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if code := self.next_refusal():
            return f"{code} refused, as the test wants it"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        head = f"X-MailFrom: {envelope.mail_from}\r\nX-RcptTo: {', '.join(envelope.rcpt_tos)}\r\n"
        name = f"{len(list(self.messages.glob('*.eml'))) + 1:06}"
        # Under its name only when it is whole: the test reads at any time.
        part = self.messages / f"{name}.part"
        part.write_bytes(head.encode() + envelope.original_content)
        part.rename(self.messages / f"{name}.eml")
        return "250 OK"

    def next_refusal(self):
        if not self.refuse.exists():
            return None
        left, code = self.refuse.read_text().split()
        if int(left) > 0:
            self.refuse.write_text(f"{int(left) - 1} {code}")
            return code
        return None


async def main(folder, port, mode, user=None, password=None):
    tls = None
    if mode != "plain":
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    def authenticate(server, session, envelope, mechanism, given):
        login = LoginPassword(user.encode(), password.encode())
        # Not handled: the server gives the answer that goes with a failure.
        return AuthResult(success=given == login, handled=False)

    loop = asyncio.get_running_loop()
    postbox = Postbox(folder)

    def connection():
        return SMTP(
            postbox,
            # Its default asks the name service for this machine's name.
            hostname="localhost",
            ident="test",
            enable_SMTPUTF8=True,
            tls_context=tls if mode == "starttls" else None,
            require_starttls=mode == "starttls",
            # Of the other kind of TLS it does not know that it is there.
            auth_require_tls=mode == "starttls",
            auth_required=user is not None,
            authenticator=authenticate if user is not None else None,
            loop=loop,
        )

    server = await loop.create_server(connection, "127.0.0.1", port, ssl=tls if mode == "tls" else None)
    await server.serve_forever()


folder, port, mode, *login = sys.argv[1:]
asyncio.run(main(Path(folder), int(port), mode, *login))
