"""Countries and their capitals: knowledge that a real language model has and anyone can check."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

_WITH_ARTICLE = ("Czech Republic", "Netherlands", "Philippines", "United Kingdom")

Continent = Literal["Europe", "Asia", "Africa", "America"]


@dataclass(frozen=True, kw_only=True)
class Country:
    """A country, its capital, and what Spanish calls both."""

    name: str
    """The English name, without article."""
    capital: str
    """The English name of the capital."""
    continent: Continent
    """The continent that it is counted to here."""
    spanish: str
    """The Spanish name of the country."""
    spanish_capital: str
    """The Spanish name of the capital."""

    @property
    def with_article(self) -> str:
        """The name as it stands in a sentence: "the Netherlands"."""
        return f"the {self.name}" if self.name in _WITH_ARTICLE else self.name

    def named_in(self, text: str) -> bool:
        """Whether a text names the capital, in English or Spanish, as words of their own, whatever
        the size and the accents of their letters."""
        words = _words(text)
        return any(_words(name) in words for name in (self.capital, self.spanish_capital))


def _words(text: str) -> str:
    """The words of a text in plain small letters, with a space around each."""
    return " " + " ".join(re.findall(r"[^\W_]+", without_accents(text))) + " "


def without_accents(text: str) -> str:
    """The text in small letters without accents: "Bogotá" is "bogota"."""
    letters = unicodedata.normalize("NFD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


#: English name, capital, Spanish name, Spanish capital where it differs. A country is
#: counted to the continent that it is commonly counted to, and the capital is the one commonly
#: named, whatever the law says. Left out are countries whose capital has their name or is disputed.
_ROWS: dict[Continent, str] = {
    "Europe": """
        Albania: Tirana: Albania
        Austria: Vienna: Austria: Viena
        Belarus: Minsk: Bielorrusia
        Belgium: Brussels: Bélgica: Bruselas
        Bulgaria: Sofia: Bulgaria: Sofía
        Croatia: Zagreb: Croacia
        Czech Republic: Prague: República Checa: Praga
        Denmark: Copenhagen: Dinamarca: Copenhague
        Estonia: Tallinn: Estonia: Tallin
        Finland: Helsinki: Finlandia
        France: Paris: Francia: París
        Germany: Berlin: Alemania: Berlín
        Greece: Athens: Grecia: Atenas
        Hungary: Budapest: Hungría
        Iceland: Reykjavik: Islandia: Reikiavik
        Ireland: Dublin: Irlanda: Dublín
        Italy: Rome: Italia: Roma
        Latvia: Riga: Letonia
        Lithuania: Vilnius: Lituania: Vilna
        Netherlands: Amsterdam: Países Bajos: Ámsterdam
        Norway: Oslo: Noruega
        Poland: Warsaw: Polonia: Varsovia
        Portugal: Lisbon: Portugal: Lisboa
        Romania: Bucharest: Rumania: Bucarest
        Serbia: Belgrade: Serbia: Belgrado
        Slovakia: Bratislava: Eslovaquia
        Slovenia: Ljubljana: Eslovenia: Liubliana
        Spain: Madrid: España
        Sweden: Stockholm: Suecia: Estocolmo
        Switzerland: Bern: Suiza: Berna
        Ukraine: Kyiv: Ucrania: Kiev
        United Kingdom: London: Reino Unido: Londres
    """,
    "Asia": """
        Afghanistan: Kabul: Afganistán
        Bangladesh: Dhaka: Bangladés: Daca
        Cambodia: Phnom Penh: Camboya: Nom Pen
        China: Beijing: China: Pekín
        India: New Delhi: India: Nueva Delhi
        Indonesia: Jakarta: Indonesia: Yakarta
        Iran: Tehran: Irán: Teherán
        Iraq: Baghdad: Irak: Bagdad
        Japan: Tokyo: Japón: Tokio
        Jordan: Amman: Jordania: Amán
        Lebanon: Beirut: Líbano
        Malaysia: Kuala Lumpur: Malasia
        Mongolia: Ulaanbaatar: Mongolia: Ulán Bator
        Nepal: Kathmandu: Nepal: Katmandú
        Pakistan: Islamabad: Pakistán
        Philippines: Manila: Filipinas
        Saudi Arabia: Riyadh: Arabia Saudita: Riad
        South Korea: Seoul: Corea del Sur: Seúl
        Syria: Damascus: Siria: Damasco
        Thailand: Bangkok: Tailandia
        Vietnam: Hanoi: Vietnam: Hanói
    """,
    "Africa": """
        Algeria: Algiers: Argelia: Argel
        Angola: Luanda: Angola
        Egypt: Cairo: Egipto: El Cairo
        Ethiopia: Addis Ababa: Etiopía: Adís Abeba
        Ghana: Accra: Ghana: Acra
        Kenya: Nairobi: Kenia
        Libya: Tripoli: Libia: Trípoli
        Morocco: Rabat: Marruecos
        Nigeria: Abuja: Nigeria: Abuya
        Senegal: Dakar: Senegal
        Somalia: Mogadishu: Somalia: Mogadiscio
        Sudan: Khartoum: Sudán: Jartum
        Uganda: Kampala: Uganda
        Zambia: Lusaka: Zambia
        Zimbabwe: Harare: Zimbabue
    """,
    "America": """
        Argentina: Buenos Aires: Argentina
        Brazil: Brasilia: Brasil
        Canada: Ottawa: Canadá
        Chile: Santiago: Chile
        Colombia: Bogota: Colombia: Bogotá
        Cuba: Havana: Cuba: La Habana
        Ecuador: Quito: Ecuador
        Haiti: Port-au-Prince: Haití: Puerto Príncipe
        Honduras: Tegucigalpa: Honduras
        Jamaica: Kingston: Jamaica
        Nicaragua: Managua: Nicaragua
        Paraguay: Asuncion: Paraguay: Asunción
        Peru: Lima: Perú
        Uruguay: Montevideo: Uruguay
        Venezuela: Caracas: Venezuela
    """,
}

#: The countries, in the order of the text above, without one whose capital is in dispute.
COUNTRIES = tuple(
    Country(
        name=cells[0], capital=cells[1], continent=continent, spanish=cells[2],
        spanish_capital=cells[3] if len(cells) > 3 else cells[1],
    )
    for continent, rows in _ROWS.items()
    for row in rows.strip().split("\n")
    for cells in [[cell.strip() for cell in row.split(":")]]
)  # fmt: skip
