"""What people write when they want a picture changed: words by what they ask for.

Data, not code. English, German, French, Spanish, Italian and Portuguese, without accents and in lower
case; ``*`` ends a stem, ``_`` joins the words of a phrase. The first entry that fits speaks.
"""

from __future__ import annotations

__all__ = ["ALIASES", "ASKED", "COLOUR_NAMES", "ROLES"]

from typing import Final

#: Operation → words. Names are those of ``tones``, ``styles``, ``finishes`` and ``reading``.
ASKED: Final[dict[str, str]] = {
    # tones
    "warmer": "warm* waerm* chaud* rechauff* calid* cald* quent* cosy cozy gemutlich* sunny",
    "cooler": "cool* cold* chill* kuhl* kalt* kaelt* froid* refroid* frio* fria* fredd* frais"
    " fraiche fresc* icy eisig*",
    "brighter": "bright* lighter lighten* light heller hell helle helles aufhell* clair* eclairc*"
    " lumin* claro clara claras claros mas_claro aclar* chiar* schiar*",
    "darker": "dark darker darken* darkness moody dunkel* dunkl* abdunk* duster* sombre* fonce*"
    " assombr* oscur* escur* scur* obscur*",
    "more saturated": "saturat* vivid* vibran* colorful* colourful* punch* pop pops bold* intens*"
    " rich richer leuchtend* kraftig* farbenfroh* bunt* farbiger satt satter sattig* vif vifs vive"
    " vives eclatant* vivo vivos viva vivas vivac* vivid* energetic dynamic dynamisch*"
    " dynamique*",
    "muted": "mute* desaturat* dull faded_colo* calm* soft* gentle* subtle subtler understated"
    " gedampf* blass* matt matter entsattig* sanft* dezent* terne* attenu* doux douce* suave*"
    " apagad* tenue* spent* smorzat* tenui discret*",
    "monochrome": "monochrom* greyscale grayscale black_and_white black_white b_w"
    " schwarz_weiss schwarzweiss schwarz_und_weiss graustufen noir_et_blanc blanco_y_negro"
    " escala_de_grises bianco_e_nero preto_e_branco desaturate_completely",
    "sepia": "sepia*",
    "pastel": "pastel* pastell*",
    "contrast": "contrast* kontrast*",
    "light and dark swapped": "invert* negative umkehr* umgekehrt*",
    "dark mode": "dark_mode night_mode dunkelmodus"
    " nachtmodus mode_sombre mode_nuit modo_oscuro modo_noche modo_escuro",
    "other hues": "recolo* different_colo* other_colo* new_colo* another_colo* change_colo*"
    " change_the_colo* andere_farb* neue_farb* umfarb* autres_couleurs nouvelles_couleurs"
    " otros_colores nuevos_colores altri_colori nuovi_colori outras_cores novas_cores",
    # colours of the picture
    "duotone": "duotone* duoton* two_tone zweifarbig* bicolo* bicromat*",
    "minimal": "minimal* simple simpler simplif* simplic* clean cleaner declutter* reduce_detail*"
    " einfach* schlicht* vereinfach* reduzier* aufgeraumt* epure* simplement sencill* limpio limpia"
    " semplic* semplif* pulit* simples limpo",
    "flat": "flat flatter flach* plano plana piatt* flat_design",
    # styles
    "sketch": "sketch* pencil* hand_drawn handdrawn drawn skizz* bleistift* gezeichnet* handgezeichnet*"
    " crayon* croquis* dessine* esquisse* boceto* lapiz dibujad* schizz* matita disegnat* esboco*"
    " lapis desenhad*",
    "line art": "line_art lineart line_drawing linework outlines_only monoline strichzeichnung*"
    " linienkunst lineal* contour_only au_trait tratto arte_lineal",
    "blueprint": "blueprint* bauplan* blaupause* technical_drawing plan_bleu cianotip* technisch*",
    "neon": "neon* leuchtrohr* leuchtreklame neones glow* gluhend* luminescent* cyberpunk synthwave"
    " futurist* futuriste*",
    "glass": "glass* glas glasig* glaser* verre vitre* vidrio cristal* vetro vidro frosted translucent"
    " transluc*",
    "relief": "relief* emboss* bevel* 3d three_dimensional dimension* depth raised plastisch*"
    " gepragt* dreidimensional* rilievo relevo volumen volume tridimension*",
    "comic": "comic* cartoon* pop_art halftone* manga bande_dessinee historieta fumett* rasterpunkt*",
    "gradient": "gradient* verlauf* farbverlauf* degrad* sfumat* modern moderner moderne modernes"
    " moderno moderna contemporary",
    "gold": "gold_foil golden_metal metallic_gold gold_metal* goldfolie goldmetall* vergoldet* dorure"
    " metallic metal* metallisch*",
    "silver": "chrome chrom chromed metallic_silver silver_metal* silver_foil versilbert* chrome*"
    " cromo cromad*",
    "copper": "metallic_copper copper_metal* rose_gold kupferfolie or_rose oro_rosa",
    # finishes
    "aged print": "vintage* retro* aged old antique antik* nostalg* ancien* antigu* antic* anticat*"
    " worn distressed grunge altmodisch* gealtert* grain* film_grain kornig*",
    "watercolour": "watercolo* water_color* aquarell* aquarelle acuarel* acquerell* aquarel* painted"
    " painterly gemalt* peint* pintad* dipint*",
    "pixels": "pixel* 8_bit 8bit verpixel* pixelis*",
    "blur": "blur* out_of_focus unscharf* weichzeich* verschwomm* verwisch* flou* desenfo* borros*"
    " sfoc* desfoc*",
    "sharpness": "sharp* crisp* scharf* nettete nitid* aguz*",
    # shape and place
    "corners": "rounded rounder corner* abgerundet* ecke* ecken arrondi* coins redondead* esquinas"
    " arrotondat* angoli arredondad* cantos app_icon squircle",
    "circle": "circle circular round disc disk badge* medallion kreis* rund runde runder rundes cercle"
    " rond ronde circul* redond* cerchio rotond* circol* insignia",
    "rotate": "rotat* dreh* gedreht* tourne* pivot* gira girar giro gire ruot* rodar tilt* slant*"
    " neig* kipp* schrag* inclin* angled clockwise",
    "mirror": "mirror* flip* spiegel* gespiegelt* miroir* retourn* espej* volte* specchi* espelh*"
    " upside_down reflect*",
    "padding": "padding margin* whitespace white_space breathing* spacing smaller kleiner"
    " verkleiner* abstand luft marge* plus_petit* margen* pequen*"
    " margin* piccol* spazio menor zoom_out shrink*",
    "larger": "bigger larger enlarge* zoom zoom_in grosser vergrosser* agrand* plus_grand* grossir"
    " grande grandes ingrand* maior aumentar* closer huge",
    "outline": "outline* border* rand rander randes thick* dicker dickere fetter epais* grueso spess*"
    " stroke* contour* kontur* umrand* umriss* contorno* bord bordure*"
    " borde bordo frame* rahmen cadre marco"
    " cornice moldura",
    "sticker": "sticker* aufkleber* autocollant* pegatina* adesiv*",
    "shadow": "shadow* schatten* ombre* ombra sombra* drop_shadow",
}

#: Words that say something about their neighbours.
ROLES: Final[dict[str, str]] = {
    "ground": "background* backdrop ground hintergrund* untergrund* grund fond fonds arriere_plan"
    " fondo* sfondo* fundo*",
    "clear": "transparen* durchsichtig* cut_out cutout freigestell* freistell* detour*",
    "remove": "remove* delete* erase* entfern* weg losch* supprim* enlev* retir* quita* elimin*"
    " rimuov* togli* remov* tira*",
    "no": "no not without dont never kein* nicht ohne pas sans sin senza sem non nao",
    "keep": "keep preserve behalt* beibehalt* garde* conserv* manten* mantien*",
    "less": "less weniger moins menos meno reduce* decrease* lower tone_down reduzier* reduir*"
    " reduc* ridur* diminu*",
    "more": "more mehr plus mas piu mais increase* boost* add* erhoh* augment*",
    "slightly": "slightly bit little touch subtly somewhat etwas bisschen leicht leichte leichter peu"
    " legerement poco ligeramente leggermente pouco",
    "very": "very much really way lot strong* extreme* heavy heavily super sehr viel stark* tres"
    " beaucoup fort* muy mucho molto muito",
    "light": "light lighter bright pale hell helle heller helles helles hellem clair claire claro clara"
    " chiaro chiara pale palido",
    "dark": "dark* deep dunkel* dunkl* tief* fonce* sombre profond* oscur* escur* scur* profund*",
    "to": "to into with by in zu durch mit nach auf en par por con vers a di em",
    "change": "change replace turn make swap ersetz* ander* tausch* mach* wechsel* chang* remplac*"
    " transform* cambi* reemplaz* sustitu* sostitu* troc* mud*",
    "accent": "accent* highlight* akzent* touches acento* accento* detail* detalles dettagli",
    "text": "text* word words slogan* tagline* title* titel caption* lettering letters write* written"
    " name schrift* schreib* beschrift* texte* titre* ecris* ecri* texto* titulo* escrib* palabra*"
    " testo* scritta* scriv* titolo* escrev* nome nom nombre",
    "top": "top above oben oberhalb haut dessus arriba encima sopra alto acima",
    "theme": "theme* palette* paleta* tavolozza farbpalette* colo* farben farbwelt couleur* colori"
    " cores mood vibe* stimmung ambiance ambiente atmosfera feel feeling style inspired like wie"
    " comme como come tones scheme",
    "vertical": "vertical* upside_down vertikal* kopfuber verticale*",
    "counter": "counterclockwise anticlockwise left links gegen gauche izquierda sinistra esquerda",
}

#: Words that mean a whole direction: read as if this had been written instead.
ALIASES: Final[dict[str, str]] = {
    "premium": "luxury theme dark background",
    "luxurious": "luxury theme dark background",
    "elegant": "elegant theme",
    "professional": "corporate theme",
    "serious": "corporate theme",
    "serios": "corporate theme",
    "friendly": "warm pastel",
    "freundlich": "warm pastel",
    "cute": "candy theme",
    "fun": "playful theme",
    "verspielt": "playful theme",
    "fresh": "bright saturated",
    "frisch": "bright saturated",
}

#: Names of colours in other languages (and short ones) → English.
COLOUR_NAMES: Final[dict[str, str]] = {
    word: colour
    for colour, words in {
        "red": "red rot rote roter rotes roten rouge rouges rojo roja rojos rosso rossa vermelho vermelha",
        "orange": "orange oranges naranja arancione laranja",
        "yellow": "yellow gelb gelbe gelber gelbes jaune jaunes amarillo amarilla giallo gialla amarelo",
        "green": "green grun grune gruner grunes grunen vert verte verts verde verdes",
        "teal": "teal petrol blaugrun",
        "turquoise": "turquoise turkis turkise turquesa turchese",
        "cyan": "cyan zyan cian ciano",
        "blue": "blue blau blaue blauer blaues blauen bleu bleue bleus azul azules blu azzurro",
        "skyblue": "sky_blue himmelblau bleu_ciel celeste",
        "royalblue": "royal_blue konigsblau",
        "hotpink": "hot_pink",
        "navy": "navy navy_blue marineblau nachtblau marine_blue bleu_marine azul_marino blu_navy",
        "indigo": "indigo",
        "purple": "purple violet violett violette lila morado morada viola roxo roxa violeta",
        "magenta": "magenta",
        "pink": "pink rosa rose rosado",
        "brown": "brown braun braune brauner brun brune marron marrone castanho",
        "gold": "gold golden goldene goldener dore doree dorado dorada dorato dorata dourado",
        "silver": "silver silbern silber argente argent plateado plata argento prateado",
        "black": "black schwarz schwarze schwarzer schwarzes schwarzem schwarzen noir noire negro negra"
        " nero nera preto preta",
        "white": "white weiss weisse weisser weisses weissem weissen blanc blanche blanco blanca"
        " bianco bianca branco branca",
        "gray": "grey gray grau graue grauer graues gris grise grigio grigia cinza",
        "beige": "beige",
        "cream": "cream creme crema",
        "maroon": "maroon burgundy bordeaux weinrot",
        "mint": "mint minze menthe menta",
        "coral": "coral korall* koralle corail",
        "lavender": "lavender lavendel lavande lavanda",
    }.items()
    for word in words.split()
}
