"""The shop's mail."""

import os
import smtplib
from email.message import EmailMessage


def send_mail(to: str, subject: str, text: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail.set_content(text)
    with smtplib.SMTP("localhost", int(os.environ["SMTP_PORT"])) as server:
        server.send_message(mail)
